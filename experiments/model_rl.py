"""Does a cloned policy gain from learning inside RLA-WM?  Against itself, and against the same learning with a reward that means nothing.

wmzoo study model_rl
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study


def study(scale: Scale = "small") -> Study:
    """All rows start from one cloned policy and dream in one world model; seeds are those of what is learnt after that."""
    return Study(
        question="Does reinforcement learning inside a world model improve a cloned policy?",
        rows={name: Row(name) for name in ("bc_rl_off", "bc_rl", "bc_rl_shuffled")},
        baseline="bc_rl_off",
    )
