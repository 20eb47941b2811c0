"""The hash of the C sources, baked into the extension when it is built and compared when it is imported.

It is apart from everything else because the build script needs it before there is an extension.
"""

import hashlib
from pathlib import Path

__all__ = ["source_hash"]


def source_hash(folder: Path) -> str:
    """SHA-256, in hex, over names and contents of the .c and .h files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.[ch]")):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
