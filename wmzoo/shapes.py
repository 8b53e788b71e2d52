"""How are tensor shapes checked?  By one decorator: `@checked` makes the annotations law."""

from beartype import beartype
from jaxtyping import jaxtyped

checked = jaxtyped(typechecker=beartype)
