"""What do the plain policies reach by their own recipes?

wmzoo study policies
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study


def study(scale: Scale = "small") -> Study:
    """Nothing is changed: each arm has the steps and the demonstrations that it has by default."""
    return Study(
        question="What do the plain policies reach by their own recipes?",
        rows={name: Row(name) for name in ("policy", "diffusion_policy")},
        baseline="policy",
    )
