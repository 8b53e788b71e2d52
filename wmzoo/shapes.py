"""How are tensor shapes checked?  By one decorator: `@checked` makes the annotations law; an int may stand for a float."""

from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

checked = jaxtyped(typechecker=beartype(conf=BeartypeConf(is_pep484_tower=True)))
