"""What can happen to a file, drawn by hypothesis: bytes lost or changed, and content of another type, shape or size.

Each function takes a `draw` of hypothesis and a path, and changes the file there.
"""

import gzip
import io
import json
import pathlib
import struct
import zipfile
import zlib

import h5py
import numpy as np
from hypothesis import strategies as st

NUMBERS = (-1, 0, 3, 10**6, 2**31, 2**63, 10**400, -(2**40), 0.5, 1e308)
TEXTS = ("", "x", "nan", "é\n", "../../x", "<b>")
ODD = st.sampled_from([None, True, *NUMBERS, *TEXTS, [], {}, [[]], [1, [2]], {"a": 1}, [None] * 3])
ODD_VALUES = st.one_of(ODD, st.text(max_size=5))
TOKENS = ("nan", "1e999", "", "-", "²", "9" * 30, "é", "a b", "../x.png", '"', "1,2", "\x00", "000001.jpg", "-1", "7")
MAGIC = (b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY\x01\x00")
FILLED = st.sampled_from([b"", b"null", b"[]", b"{}", b"\x00" * 64, *MAGIC])
SHAPES = ("(99999999999,)", "(-1, 4)", "()", "(True,)", "(2,", "(((((" * 40, "(10**9, 10**9)")
TYPES = ("|u1", "<f8", "|O", "<U999999999", "('<u1', (9, 9))", "<i8", "V8")


def in_bytes(draw, path: pathlib.Path) -> None:
    """Cuts, flips, overwrites, leaves out, doubles, or replaces everything."""
    data = bytearray(path.read_bytes())
    # Ends matter more than middles: headers stand there.
    place = draw(st.one_of(st.integers(0, len(data)), st.integers(0, min(64, len(data)))))
    place = draw(st.sampled_from([place, len(data) - place]))
    length = draw(st.sampled_from([1, 2, 4, 16, 200, len(data) // 2]))
    how = draw(st.sampled_from(["cut", "flip", "overwrite", "leave out", "double", "replace"]))
    if how == "cut":
        data = data[:place]
    elif how == "flip" and data:
        data[min(place, len(data) - 1)] ^= 1 << draw(st.integers(0, 7))
    elif how == "overwrite":
        filler = draw(st.sampled_from([b"\x00", b"\xff", b"9", b"{", b"\n", b"\x80"]))
        data[place : place + length] = filler * len(data[place : place + length])
    elif how == "leave out":
        del data[place : place + length]
    elif how == "double":
        data[place:place] = data[place : place + length]
    elif how == "replace":
        data = draw(FILLED)
    path.write_bytes(data)


def in_json(draw, path: pathlib.Path) -> None:
    """One value, anywhere, is another, gone, or under another name; of a file of lines, in one of them."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = draw(st.integers(0, len(lines) - 1))
    holder = [json.loads(lines[number])]
    parent, key = holder, 0
    for _ in range(draw(st.integers(0, 6))):  # down a few steps
        below = parent[key]
        if not isinstance(below, (dict, list)) or not below:
            break
        keys = sorted(below) if isinstance(below, dict) else list(range(len(below)))
        parent, key = below, draw(st.sampled_from(keys))
    how = draw(st.sampled_from(["change", "remove", "rename", "repeat", "nest"]))
    if how == "remove" and parent is not holder:
        del parent[key]
    elif how == "rename" and isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
    elif how == "repeat" and isinstance(parent, list):
        parent.append(parent[key])
    elif how == "nest":
        parent[key] = [parent[key]]
    else:
        parent[key] = draw(ODD_VALUES)
    lines[number] = json.dumps(holder[0])
    if draw(st.integers(0, 20)) == 20:
        lines[number] = "[" * 100_000
    path.write_text("\n".join(lines) + "\n")


# --- arrays ----------------------------------------------------------------------------------------------


def other_array(draw, array: np.ndarray, objects: bool = True) -> np.ndarray:
    """An array of another type or another shape."""
    kinds = ["float", "nan", "complex", "text", "bytes", "bool", "int64", "big", "structured", "date", "half"]
    shapes = ["scalar", "none", "fewer", "more", "axis", "flat", "columns", "turned"]
    how = draw(st.sampled_from([*kinds, *shapes, *(["object"] if objects else [])]))
    if how in shapes:
        return {
            "scalar": lambda: array.reshape(-1)[:1].reshape(()) if array.size else np.zeros(()),
            "none": lambda: array[:0],
            "fewer": lambda: array[: max(1, len(array) // 2)],
            "more": lambda: np.concatenate([array, array]),
            "axis": lambda: array[..., None],
            "flat": lambda: array.reshape(-1),
            "columns": lambda: array.reshape(len(array), -1)[:, :1],
            "turned": lambda: np.asfortranarray(array.T),
        }[how]()
    if array.dtype.kind in "USO":
        array = np.zeros(array.shape)
    values = array.astype(np.float64)
    if how == "nan":
        values.reshape(-1)[: draw(st.integers(1, 3))] = draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e300]))
        return values
    with np.errstate(all="ignore"):
        return _of_type(how, values, objects)


def _of_type(how: str, values: np.ndarray, objects: bool) -> np.ndarray:
    return {
        "float": lambda: values,
        "complex": lambda: values + 1j,
        "text": lambda: values.astype("U8"),
        "bytes": lambda: values.astype("S8"),
        "bool": lambda: values > 0,
        "int64": lambda: values.astype(np.int64),
        "big": lambda: values.astype(">i4"),
        "structured": lambda: np.zeros(values.shape, [("a", "i4"), ("b", "f8")]),
        "date": lambda: np.zeros(values.shape, "i8") if not objects else np.zeros(values.shape, "M8[s]"),
        "half": lambda: values.astype(np.float16),
        "object": lambda: values.astype(object),
    }[how]()


def in_npz(draw, path: pathlib.Path) -> None:
    """An array is another, gone, misnamed, or its member's header or flags lie."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw(st.sampled_from(sorted(members)))
    how = draw(st.sampled_from(["array", "array", "array", "header", "gone", "name", "flag", "method", "bomb"]))
    if how == "array":
        array = np.load(io.BytesIO(members[name]), allow_pickle=True)  # of our own making
        stream = io.BytesIO()
        np.lib.format.write_array(stream, other_array(draw, np.atleast_1d(array)), allow_pickle=True)
        members[name] = stream.getvalue()
    elif how == "header":
        shape, kind = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(TYPES))
        text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
        header = text.encode().ljust(117) + b"\n"
        members[name] = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + members[name][-64:]
    elif how == "gone":
        members.pop(name)
    elif how == "name":
        members[draw(st.sampled_from(["x.npy", "../x.npy", name.removesuffix(".npy"), "é.npy"]))] = members.pop(name)
    elif how == "bomb":
        header = np.lib.format.header_data_from_array_1_0(np.zeros((2**23, 8), np.uint8))
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, header)
        members[name] = stream.getvalue() + bytes(2**26)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    if how in ("flag", "method"):
        _change_members(path, how)


def _change_members(path: pathlib.Path, how: str) -> None:
    """Every member is said to be encrypted, or compressed in a way that nobody knows."""
    data = bytearray(path.read_bytes())
    for signature, flags, method in ((b"PK\x03\x04", 6, 8), (b"PK\x01\x02", 8, 10)):
        place = data.find(signature)
        while place >= 0:
            if how == "flag":
                data[place + flags] |= 1
            else:
                data[place + method] = 99
            place = data.find(signature, place + 4)
    path.write_bytes(data)


def in_hdf5(draw, path: pathlib.Path) -> None:
    """A data set is another, empty, absurdly large, elsewhere, a link, or a group."""
    with h5py.File(path, "a") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = draw(st.sampled_from(sorted(names)))
        array = file[name][...]
        del file[name]
        elsewhere = ["external", "virtual", "link", "soft"]
        how = draw(st.sampled_from(["array", "array", "array", "empty", "huge", "group", "gone", *elsewhere]))
        if how == "array":
            file[name] = _storable(other_array(draw, array, objects=False))
        elif how == "empty":
            file[name] = h5py.Empty(draw(st.sampled_from(["f8", "u1"])))
        elif how == "huge":
            rows = draw(st.sampled_from([len(array), 10**6, 10**12]))
            shape = (rows, *array.shape[1:]) if rows > len(array) else (rows, 10**9)
            file.create_dataset(name, shape, array.dtype, chunks=tuple(min(64, n) for n in shape))
        elif how == "external":
            other = path.with_name("elsewhere.bin")
            other.write_bytes(array.tobytes())
            file.create_dataset(name, array.shape, array.dtype, external=[(other.name, 0, array.nbytes)])
        elif how == "virtual":
            other = path.with_name("elsewhere.h5")
            with h5py.File(other, "w") as source:
                source["data"] = array
            layout = h5py.VirtualLayout(array.shape, array.dtype)
            layout[...] = h5py.VirtualSource(other, "data", array.shape)
            file.create_virtual_dataset(name, layout)
        elif how == "link":
            file[name] = h5py.ExternalLink(draw(st.sampled_from(["elsewhere.h5", str(path)])), "/data")
        elif how == "soft":
            file[name] = h5py.SoftLink(draw(st.sampled_from(["/", "/nowhere", f"/{name}"])))
        elif how == "group":
            file.create_group(name)


def _storable(array: np.ndarray) -> np.ndarray:
    return array.astype("S") if array.dtype.kind == "U" else array


def in_norb(draw, path: pathlib.Path) -> None:
    """The numbers of a SmallNORB header: types, dimensions, sizes."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    place = 4 * draw(st.integers(0, 5))
    number = draw(st.sampled_from([0, 1, 2, 3, 8, 9, 96, 1000, 2**31 - 1, 2**32 - 1, 0x1E3D4C54, 0x1E3D4C55]))
    data[place : place + 4] = struct.pack("<I", number)
    path.write_bytes(gzip.compress(bytes(data), 1))


# --- images and lists ------------------------------------------------------------------------------------


def huge_png(side: int = 20_000) -> bytes:
    """A PNG of few bytes that says it has `side`² pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side + 1) * 8)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def other_image(draw, data: bytes) -> bytes:
    how = draw(st.sampled_from(["empty", "text", "cut", "huge", "large", "postscript", "svg"]))
    return {
        "empty": b"",
        "text": b"no image\n",
        "cut": data[: len(data) // 2],
        "huge": huge_png(),
        "large": huge_png(10_000),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }[how]


def in_zip(draw, path: pathlib.Path) -> None:
    """A member is no image, gone, or large."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw(st.sampled_from(sorted(members)))
    how = draw(st.sampled_from(["image", "image", "gone", "bomb", "flag", "method"]))
    if how == "image":
        members[name] = other_image(draw, members[name])
    elif how == "bomb":
        members[name] += bytes(2**26)
    elif how == "gone":
        members.pop(name)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    if how in ("flag", "method"):
        _change_members(path, how)


def in_image(draw, path: pathlib.Path) -> None:
    """The file is no image, or one too large."""
    path.write_bytes(other_image(draw, path.read_bytes()))


def in_list(draw, path: pathlib.Path) -> None:
    """A word of a list is another, or a line is gone, or twice there."""
    text = path.read_text()
    separator = "," if path.suffix == ".csv" else " "
    lines = text.splitlines()
    number = draw(st.one_of(st.integers(0, len(lines) - 1), st.integers(0, min(1, len(lines) - 1))))
    how = draw(st.sampled_from(["word", "word", "word", "gone", "twice", "longer"]))
    if how == "word":
        words = lines[number].split(separator)
        words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(TOKENS))
        lines[number] = separator.join(words)
    elif how == "gone":
        del lines[number]
    elif how == "twice":
        lines.insert(number, lines[number])
    else:
        lines[number] += separator + "x" * draw(st.sampled_from([1, 200_000]))
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
