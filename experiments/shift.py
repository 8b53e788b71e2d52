"""What when the camera moves, the light fades, the table has another colour, strange boxes lie about, or the hand starts elsewhere?

wmzoo study shift          the policies of implicit_vs_explicit, which are trained only if they are not there
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study

from . import implicit_vs_explicit


def study(scale: Scale = "small") -> Study:
    """Explicit and implicit models are reported to differ mainly here."""
    main = implicit_vs_explicit.study(scale)
    rows: dict[str, Row] = {name: main.rows[name] for name in ("policy", "policy_embedding", "flare", "lara", "uwm")}
    many = list(main.settings)[-1]
    return Study(
        question="Which policy keeps playing when one thing is changed that no demonstration has shown?",
        rows=rows,
        baseline="policy",
        settings={many: main.settings[many]},
        measures=("play", "shift"),
    )
