"""What is known of each published data set: one record each, read by whatever needs to know of the set.

Adding a published set takes a converter of its files (see real/conversion.py), a record here and an entry in
`causalvae.data.DATASETS`; options, caching, streaming, preparation and refusals follow from the record.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Factors = tuple[tuple[str, int], ...]  # names and sizes in storage order: row-major, the last fastest


class Release(NamedTuple):
    """One form in which a set is published."""

    files: tuple[str, ...]  # names of its main file, the preferred one first, or patterns for files of that format
    url: str
    tfds: str  # what TensorFlow Datasets calls it (MPI3D is ours: real/mpi3d_tfds.py)
    beside: tuple[tuple[str, ...], ...] = ()  # the other files that make it up, each by the names it may have
    factors: Factors | None = None  # where they are not the record's


class Record(NamedTuple):
    """One published data set."""

    name: str
    paper: str
    license: str
    convert: str  # "module:function" in causalvae.data, (location, store, *, options) -> facts
    image_shape: tuple[int, ...]  # of one image in its files
    releases: dict[str, Release]  # by the values of the option `choice`, the default first
    choice: str = ""  # the option that says which release is read
    factors: Factors = ()  # none: the set has attributes, which did not make the images
    ordered: tuple[str, ...] = ()  # factors whose next value looks alike, by which files without labels are checked
    constant: tuple[str, ...] = ()  # factors that precede these in the files, have one value, and are dropped
    splits: dict[str, Any] = {}  # name -> what the files call it
    checksums: dict[str, str] = {}  # file -> "algorithm:digest" that others have published
    by_hand: str = ""  # what to fetch where no program can; none: one of the release's files

    @property
    def factor_names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.factors)

    @property
    def factor_sizes(self) -> tuple[int, ...]:
        return tuple(size for _, size in self.factors)

    @property
    def takes_file(self) -> bool:
        """Whether the main file may be given by any name; the parts of SmallNORB are known by theirs."""
        first = next(iter(self.releases.values()))
        return not any(first.files[0] in names for names in first.beside)

    def release(self, choice: str | None = None) -> Release:
        """Returns the release of one value of the option `choice`, by default its first.

        Raises:
            ValueError: there is no such release; the message names those there are.
        """
        check_choice(self.name, self.choice, choice or next(iter(self.releases)), tuple(self.releases))
        return self.releases[choice or next(iter(self.releases))]


def check_choice(name: str, option: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises ValueError, naming what there is, unless `value` is one of an option's choices."""
    if value not in choices:
        raise ValueError(f"{name} has no {option} {value!r}; it has: {', '.join(choices)}")


_DSPRITES_STEM = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64"
DSPRITES = Record(
    name="dsprites",
    paper="Matthey et al. 2017, dSprites: disentanglement testing sprites dataset",
    license="Apache 2.0",
    convert="real.conversion:dsprites",
    image_shape=(64, 64),
    factors=(("shape", 3), ("scale", 6), ("orientation", 40), ("posX", 32), ("posY", 32)),
    constant=("color",),
    releases={
        "": Release(
            (f"{_DSPRITES_STEM}.npz", f"{_DSPRITES_STEM}.hdf5", "dsprites*.npz", "dsprites*.hdf5"),
            "https://github.com/google-deepmind/dsprites-dataset",
            "dsprites",
        )
    },
    checksums={
        f"{_DSPRITES_STEM}.npz": "md5:7da33b31b13a06f4b04a70402ce90c2e",
        f"{_DSPRITES_STEM}.hdf5": "sha256:729fa22e884c9c500e1f17415d580746b4c5894fbbb780a1319bbcfa39a745bb",
    },
)

SHAPES3D = Record(
    name="3dshapes",
    paper="Burgess and Kim 2018, 3D shapes dataset",
    license="Apache 2.0",
    convert="real.conversion:shapes3d",
    image_shape=(64, 64, 3),
    factors=(
        ("floor_hue", 10),
        ("wall_hue", 10),
        ("object_hue", 10),
        ("scale", 8),
        ("shape", 4),
        ("orientation", 15),
    ),
    releases={
        "": Release(("3dshapes.h5", "3dshapes*.h5"), "https://storage.googleapis.com/3d-shapes/3dshapes.h5", "shapes3d")
    },
    checksums={"3dshapes.h5": "sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785"},
)

_MPI3D_URL = "https://storage.googleapis.com/mpi3d_disentanglement_dataset/data/"
_MPI3D_FACTORS: Factors = (
    ("object_color", 6),
    ("object_shape", 6),
    ("object_size", 2),
    ("camera_height", 3),
    ("background_color", 3),
    ("horizontal_axis", 40),
    ("vertical_axis", 40),
)
MPI3D = Record(
    name="mpi3d",
    paper="Gondal et al. 2019, arXiv:1906.03292",
    license="CC BY 4.0",
    convert="real.conversion:mpi3d",
    image_shape=(64, 64, 3),
    factors=_MPI3D_FACTORS,
    ordered=("horizontal_axis", "vertical_axis"),
    choice="variant",
    releases={
        "toy": Release(("mpi3d_toy.npz",), f"{_MPI3D_URL}mpi3d_toy.npz", "mpi3d/toy"),
        "realistic": Release(("mpi3d_realistic.npz",), f"{_MPI3D_URL}mpi3d_realistic.npz", "mpi3d/realistic"),
        "real": Release(("real.npz", "mpi3d_real.npz"), f"{_MPI3D_URL}real.npz", "mpi3d/real"),
        "complex": Release(
            ("real3d_complicated_shapes_ordered.npz", "mpi3d_real_complex.npz", "mpi3d_complex.npz"),
            "https://drive.google.com/file/d/1Tp8eTdHxgUMtsZv5uAoYAbJR1BOa_OQm",
            "mpi3d/complex",
            factors=(("object_color", 4), ("object_shape", 4), *_MPI3D_FACTORS[2:]),
        ),
    },
    # None is known for "complex", nor for "real" since April 2025, when it was replaced: its first file had this.
    checksums={
        "mpi3d_toy.npz": "md5:55889cb7c7dfc655d6e0277beee88868",
        "mpi3d_realistic.npz": "md5:59a6225b88b635365f70c91b3e52f70f",
        "mpi3d_real.npz": "md5:0f33f609918fb5c97996692f91129802",
    },
)

_NORB_STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}


def _norb_release(*splits: str) -> Release:
    parts = [f"{_NORB_STEMS[split]}-{part}" for split in splits for part in ("dat", "cat", "info")]
    beside = tuple((f"{part}.mat.gz", f"{part}.mat") for part in parts)
    return Release(beside[0], "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/", "smallnorb", beside)


SMALLNORB = Record(
    name="smallnorb",
    paper="LeCun, Huang and Bottou 2004, Learning methods for generic object recognition, CVPR",
    license="for research; cannot be sold",
    convert="real.conversion:smallnorb",
    image_shape=(2, 96, 96),  # two cameras
    factors=(("category", 5), ("elevation", 9), ("azimuth", 18), ("lighting", 6)),
    choice="split",
    releases={"both": _norb_release("train", "test"), "train": _norb_release("train"), "test": _norb_release("test")},
    splits=_NORB_STEMS,
    checksums={
        f"{_NORB_STEMS['train']}-dat.mat.gz": "sha256:5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
        f"{_NORB_STEMS['test']}-dat.mat.gz": "sha256:cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
    },
    by_hand="the six files smallnorb-*-{dat,cat,info}.mat.gz",
)

_CELEBA_LISTS = ("list_attr_celeba", "list_landmarks_align_celeba", "list_eval_partition")
CELEBA = Record(
    name="celeba",
    paper="Liu et al. 2015, arXiv:1411.7766",
    license="for non-commercial research",
    convert="real.faces:celeba",
    image_shape=(218, 178, 3),
    releases={
        "": Release(
            ("img_align_celeba.zip", "img_align_celeba"),
            "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
            "celeb_a",
            tuple((f"{name}.txt", f"{name}.csv") for name in _CELEBA_LISTS),
        )
    },
    splits={"train": 0, "valid": 1, "test": 2},
    checksums={
        "img_align_celeba.zip": "sha256:46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
        "list_attr_celeba.txt": "sha256:f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0",
    },
    by_hand="img_align_celeba.zip and list_attr_celeba.txt and list_eval_partition.txt and "
    "list_landmarks_align_celeba.txt",
)
