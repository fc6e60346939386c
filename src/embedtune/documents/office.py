"""DOCX files, by way of HTML. The archive is checked before anything in it is expanded."""

import io
import re
import zipfile
from xml.parsers.expat import ExpatError

from embedtune.documents.html import html_to_markdown
from embedtune.documents.reading import Broken, Part

MOST_ENTRIES = 10_000
MOST_BYTES = 300_000_000  # expanded
MOST_RATIO = 200  # expanded to packed, above 10 MB
OLD_OFFICE = b"\xd0\xcf\x11\xe0"
STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='标题'] => h1:fresh
p[style-name='标题 1'] => h1:fresh
p[style-name='标题 2'] => h2:fresh
p[style-name='标题 3'] => h3:fresh
p[style-name='标题 4'] => h4:fresh
"""


def read_docx(data: bytes, *, tables: bool) -> Part:
    """The text of a DOCX with its headings, lists and tables, as Markdown.

    Raises:
        Broken: Not an Office Open XML file, or an archive or XML that is not safe to expand.
    """
    _check(data)
    import mammoth

    try:
        result = mammoth.convert_to_html(
            io.BytesIO(data),
            style_map=STYLES,
            convert_image=mammoth.images.img_element(lambda _: {}),
        )
    except (KeyError, ValueError, zipfile.BadZipFile, OSError, EOFError, AttributeError,
            IndexError, TypeError, ExpatError, NotImplementedError) as error:  # fmt: skip
        # mammoth lets whatever its XML reader meets through
        raise Broken(
            "broken-docx", f"cannot be read ({type(error).__name__}: {error}); save it again"
        ) from error
    part = Part(kind="docx")
    html_to_markdown(result.value, part, tables=tables)
    heading = re.search(r"^# (\S.*)$", part.text, re.MULTILINE)
    if heading:
        part.title = heading[1]
    return part


def _check(data: bytes) -> None:
    if data.startswith(OLD_OFFICE):
        raise Broken("not-docx", "not an Office Open XML file, but an old or encrypted Office "
                                 "document; save it as .docx without a password")  # fmt: skip
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise Broken(
            "not-docx", f"not an Office Open XML file ({error}); save it as .docx"
        ) from error
    entries = archive.infolist()
    if len(entries) > MOST_ENTRIES:
        raise Broken(
            "archive-bomb", f"{len(entries):,} entries in the archive, allowed are {MOST_ENTRIES:,}"
        )
    total = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if total > MOST_BYTES or (total > 10_000_000 and total > MOST_RATIO * max(1, packed)):
        raise Broken("archive-bomb", f"{packed:,} bytes that expand to {total:,}; allowed are "
                                     f"{MOST_BYTES:,} and {MOST_RATIO} times the size")  # fmt: skip
    names = {entry.filename for entry in entries}
    unsafe = [
        name for name in names if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name)
    ]
    if unsafe:
        raise Broken("archive-path", f"an entry of the archive leaves its folder: {min(unsafe)!r}")
    if "[Content_Types].xml" not in names or not any(name.startswith("word/") for name in names):
        raise Broken("not-docx", "a ZIP archive, but not a Word document; save it as .docx")
    for entry in entries:
        if entry.filename.endswith((".xml", ".rels")):
            try:
                head = archive.read(entry)[:100_000]
            except (
                zipfile.BadZipFile,
                OSError,
                EOFError,
                RuntimeError,
                NotImplementedError,
            ) as error:
                raise Broken(
                    "broken-docx", f"{entry.filename} in the archive is damaged ({error})"
                ) from error
            if re.search(rb"<!(?:DOCTYPE|ENTITY)", head.replace(b"\x00", b""), re.IGNORECASE):
                raise Broken("entities", f"{entry.filename} in the archive has a document type; "
                                         "entities are not resolved")  # fmt: skip
