"""Tables made from other tables: other magnifications, other styles of annotation."""

from metaseg_monai.data.derived.magnify import magnify_table
from metaseg_monai.data.derived.styles import prepare_styles

__all__ = ["magnify_table", "prepare_styles"]
