"""Which formats of images are read, and which are known and not read: by the ends of names and by first bytes.

Only names decide which files of a folder are images, only contents how a file is read.
"""

import re

FORMATS_IN_WORDS = "PNG, JPEG, WebP, TIFF, GIF, BMP or AVIF"
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".dib", ".avif"
)  # fmt: skip
# Pictures that need a plug-in of pillow, a converter or a decision that is not ours (how to develop a raw file, at
# which size to draw an SVG), and formats so rare in folders to learn from that nobody asked for them.
UNREAD_SUFFIXES = frozenset((
    ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".jxr", ".svg", ".svgz", ".psd", ".psb", ".xcf",
    ".ai", ".eps", ".pdf", ".ico", ".cur", ".icns", ".tga", ".pcx", ".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".exr",
    ".hdr", ".dds", ".qoi", ".apng", ".avifs", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2",
    ".raf", ".orf", ".rw2", ".pef", ".srw", ".x3f", ".raw", ".3fr", ".iiq", ".dcm", ".fits",
))  # fmt: skip
_FOREIGN = {
    "HEIC": rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1.{4,40}hei[cxms])",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "Photoshop": rb"8BPS",
    "SVG": rb"(\xef\xbb\xbf)?\s*(<\?xml.{0,400})?(<!--.{0,400})?<(!DOCTYPE )?svg",
    "PDF": rb"%PDF-",
    "camera raw": rb"II\*\0.{4}CR|.{4}ftypcrx |FUJIFILMCCD-RAW|IIR[OS]|IIU\0|\0MRM",
    "Netpbm": rb"P[1-7]\s",
}
_FOREIGN_BYTES = 1024
_PNG_OR_JPEG = (b"\x89PNG", b"\xff\xd8\xff")


def unread_format(data: bytes) -> str | None:
    """The format of a file that is none of those read, if its beginning tells: such a file is not damaged."""
    if data.startswith(_PNG_OR_JPEG):  # nearly all files, spared the search
        return None
    start = data[:_FOREIGN_BYTES]
    return next((name for name, form in _FOREIGN.items() if re.match(form, start, re.DOTALL)), None)
