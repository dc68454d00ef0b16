"""How does the README read where the repository is not, as on PyPI? Its relative links lead to the repository."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    """Gives the package README.md as its long description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Make each relative link absolute, an image's to the file itself."""
        home = metadata["urls"]["Repository"]
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = re.sub(r"(!\[[^\]]*\]\()(?![a-z]+:|#)", rf"\1{home}/raw/main/", text)
        text = re.sub(r"(?<!!)(\[[^\]]*\]\()(?![a-z]+:|#)", rf"\1{home}/blob/main/", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
