# Copyright (c) The monai_landmarks developers
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Finding files, with help when they are not there, and writing them so that a reader never sees half of one."""

from __future__ import annotations

import difflib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_write", "require_file", "write_text"]


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path`` and rename it to ``path`` when the block ends without an exception.

    A reader sees the old file or the new one, never a part. The temporary file has the same suffixes as ``path``
    (``.mrk.json``, ``.nii.gz``), so that writers which choose their format by the suffix work on it. Missing parent
    folders are created. When the block raises, the temporary file is removed, the old file stays as it was and the
    exception goes on.

    Args:
        path: the file to write. An existing file is replaced; an existing folder is an error.

    Yields:
        The temporary path, an empty file in the folder of ``path``.

    Raises:
        IsADirectoryError: ``path`` is an existing folder.
        FileNotFoundError: the block ended without an exception and the temporary file is gone.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> target = Path(folder.name) / "new" / "points.mrk.json"
        >>> with atomic_write(target) as temporary:
        ...     _ = temporary.write_text("{}")
        >>> target.read_text(), len(list(target.parent.iterdir()))
        ('{}', 1)
        >>> folder.cleanup()
    """
    # A link is followed: replacing the link itself would leave the file it points to with the old content.
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"cannot write the file {str(path)!r}: a folder of that name exists; give a file name.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{_stem(target)[:40]}-{secrets.token_hex(6)}{_suffixes(target)}")
    # Not tempfile.mkstemp: it makes files that only their owner may read, and results are shared.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(
                f"nothing was written for {str(path)!r}: the temporary file {temporary.name!r} disappeared; write to "
                "the path that atomic_write yields and leave it there."
            )
        if target.exists():
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _suffixes(path: Path) -> str:
    """Return the last one or two suffixes; a dot inside the stem (``case.1.csv``) may come along, which is harmless."""
    return "".join(path.suffixes[-2:])


def _stem(path: Path) -> str:
    suffixes = _suffixes(path)
    return path.name[: -len(suffixes)] if suffixes else path.name


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8 with plain line ends, whole or not at all.

    Args:
        path: the file, see :func:`atomic_write`.
        text: all of it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder) / "new" / "why.txt", "T5: moved")
        ...     (Path(folder) / "new" / "why.txt").read_text()
        'T5: moved'
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def require_file(path: str | os.PathLike[str], what: str = "file") -> Path:
    """Return ``path`` as a Path if it is a file, else raise an error that names what is there instead.

    Args:
        path: the file wanted.
        what: what the message calls it, e.g. ``"landmark file"``.

    Raises:
        FileNotFoundError: naming the nearest file of the folder, or the deepest folder that does exist.
        IsADirectoryError: the path is a folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "case_01.fcsv").write_text("")
        ...     try:
        ...         require_file(Path(folder) / "case_1.fcsv")
        ...     except FileNotFoundError as error:
        ...         print(str(error).replace(folder, "DIR"))
        no such file: 'DIR/case_1.fcsv'. The nearest name in that folder is 'case_01.fcsv'.
    """
    file = Path(path)
    if file.is_file():
        return file
    if file.is_dir():
        raise IsADirectoryError(f"a {what} is needed, and {str(path)!r} is a folder.")
    raise FileNotFoundError(f"no such {what}: {str(path)!r}. {_what_is_there(file)}")


def _what_is_there(file: Path) -> str:
    parent = file.parent
    if not parent.is_dir():
        while parent != parent.parent and not parent.is_dir():
            parent = parent.parent
        return f"Its folder does not exist either; the deepest one that does is {str(parent)!r}."
    names = sorted(entry.name for entry in parent.iterdir())
    if not names:
        return "The folder is empty."
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(file.name.casefold(), list(folded), n=1, cutoff=0.5)
    if near:
        return f"The nearest name in that folder is {folded[near[0]]!r}."
    return f"The folder holds {len(names)} other entries, e.g. {names[0]!r}."
