"""The doors by which files come in, a small valid file for each, and ways to damage a file."""

import io
import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Door:
    """A reader.

    Args:
        name: Domain and kind of file.
        file: Name of the file that is damaged.
        write: Function that writes the valid file, and what belongs to it, into a folder.
        read: Function that reads all of the file.
    """

    name: str
    file: str
    write: Callable[[Path], None]
    read: Callable[[Path], Any]

    def __str__(self) -> str:
        return self.name


def speech() -> Iterator[Door]:
    """Yield sound files, by path and by blocks, and lists of them."""
    import soundfile

    from sixfold.speech.audio import read_audio, read_blocks
    from sixfold.speech.data.layouts import open_layout

    sound = np.random.default_rng(0).standard_normal((900, 2)).astype("f4") / 9
    kinds = {
        "wav": ("WAV", "FLOAT"), "16.wav": ("WAV", "PCM_16"), "adpcm.wav": ("WAV", "IMA_ADPCM"),
        "wavex.wav": ("WAVEX", "PCM_24"), "rf64.wav": ("RF64", "PCM_16"),
        "flac": ("FLAC", "PCM_24"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
        "aiff": ("AIFF", "PCM_16"),
        "au": ("AU", "PCM_16"), "caf": ("CAF", "PCM_16"), "w64": ("W64", "PCM_16"),
        "mp3": ("MP3", "MPEG_LAYER_III"),
    }  # fmt: skip

    def read(path: Path) -> None:
        audio, _ = read_audio(path)
        assert audio.isfinite().all()
        assert audio.numel()
        assert sum(block.shape[1] for block in read_blocks(path, 4096)) == audio.shape[1]

    for suffix, (kind, encoding) in kinds.items():

        def write(folder: Path, suffix=suffix, kind=kind, encoding=encoding) -> None:
            name = folder / f"sound.{suffix}"
            soundfile.write(name, sound, 16_000, format=kind, subtype=encoding)

        yield Door(f"speech {suffix}", f"sound.{suffix}", write, read)

    def write_list(folder: Path) -> None:
        soundfile.write(folder / "a.wav", sound[:, 0], 16_000)
        (folder / "list.csv").write_text("noisy,clean\na.wav,a.wav\na.wav,a.wav\n")

    yield Door("speech list", "list.csv", write_list, lambda path: open_layout(path, 1))


def vision() -> Iterator[Door]:
    """Yield pictures as they are enlarged and as they are classified, and masks."""
    from PIL import Image

    from sixfold.vision.data.own_pictures import find_pictures
    from sixfold.vision.data.segmentation import _open_mask, read_pair
    from sixfold.vision.images.files import Picture, read_picture, read_rgb, write_picture

    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)
    image = Image.fromarray(pixels)

    def read(path: Path) -> None:
        read_picture(path)
        read_rgb(path)

    for suffix in ("png", "jpg", "webp", "tif", "bmp", "gif", "ppm"):

        def write(folder: Path, suffix=suffix) -> None:
            image.save(folder / f"picture.{suffix}")

        yield Door(f"vision {suffix}", f"picture.{suffix}", write, read)

    def deep(folder: Path) -> None:
        write_picture(folder / "deep.png", Picture(pixels.astype(np.uint16) * 257))

    def cmyk(folder: Path) -> None:
        image.convert("CMYK").save(folder / "cmyk.tif", compression="tiff_lzw")

    def turned(folder: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(folder / "turned.jpg", exif=exif, icc_profile=b"x" * 200)

    def moving(folder: Path) -> None:
        image.save(folder / "moving.gif", save_all=True, append_images=[image.rotate(90)])

    def mask(folder: Path) -> None:
        image.convert("P").save(folder / "mask.png")
        image.save(folder / "picture.png")

    yield Door("vision 16 bits", "deep.png", deep, read)
    yield Door("vision CMYK", "cmyk.tif", cmyk, read)
    yield Door("vision EXIF", "turned.jpg", turned, read)
    yield Door("vision animation", "moving.gif", moving, read)
    yield Door("vision mask", "mask.png", mask, _open_mask)
    pair = lambda path: read_pair(path.with_name("picture.png"), path, 1.0, 256)  # noqa: E731
    yield Door("vision pair", "mask.png", mask, pair)
    found = lambda path: find_pictures(path.parent, 4)  # noqa: E731
    yield Door("vision folder", "mask.png", mask, found)


def graphs() -> Iterator[Door]:
    """Yield graphs of one's own: PyTorch, NumPy and tables."""
    from torch_geometric.data import Data

    from sixfold.graphs.data.files import read_graph_file

    edges = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])
    x, y = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1])

    def tables(folder: Path) -> None:
        rows = "".join(f"{i},{i % 2},{i / 2}\n" for i in range(5))
        (folder / "nodes.csv").write_text(f"id,label,a\n{rows}")
        (folder / "edges.csv").write_text("source,target,weight\n0,1,1\n1,2,0.5\n3,4,2\n")

    graph = Data(x=x, edge_index=edges, y=y)
    arrays: Any = {"x": x.numpy(), "edge_index": edges.numpy(), "y": y.numpy()}
    pt = lambda folder: torch.save(graph, folder / "graph.pt")  # noqa: E731
    old = lambda folder: torch.save(  # noqa: E731
        graph.to_dict(), folder / "old.pt", _use_new_zipfile_serialization=False
    )
    yield Door("graphs pt", "graph.pt", pt, read_graph_file)
    yield Door("graphs old pt", "old.pt", old, read_graph_file)
    yield Door("graphs npz", "g.npz", lambda f: np.savez(f / "g.npz", **arrays), read_graph_file)
    packed = lambda f: np.savez_compressed(f / "g.npz", **arrays)  # noqa: E731
    yield Door("graphs packed npz", "g.npz", packed, read_graph_file)
    for name in ("nodes.csv", "edges.csv"):
        yield Door(f"graphs {name}", name, tables, lambda path: read_graph_file(path.parent))


def recsys() -> Iterator[Door]:
    """Yield tables, schemas and encoders."""
    import polars as pl

    from sixfold.recsys.tables.encoder import Encoder
    from sixfold.recsys.tables.infer import infer_schema
    from sixfold.recsys.tables.read import open_source
    from sixfold.recsys.tables.schema import Schema
    from sixfold.recsys.tables.vectors import _read

    table = pl.DataFrame(
        {
            "user": [f"u{i % 7}" for i in range(40)],
            "price": [i / 3 for i in range(40)],
            "tags": ["a^b"] * 40,
            "label": [i % 2 for i in range(40)],
        }
    )

    def read(path: Path) -> None:
        source = open_source(path)
        for block in source.blocks(source.columns):
            for name in source.columns:
                block.column(name)
        infer_schema(source)

    def libsvm(folder: Path) -> None:
        (folder / "t.libsvm").write_text("1 3:1 5:1\n-1 2:1\n" * 9)

    yield Door("recsys csv", "t.csv", lambda f: table.write_csv(f / "t.csv"), read)
    tsv = lambda f: table.write_csv(f / "t.tsv", separator="\t")  # noqa: E731
    yield Door("recsys tsv", "t.tsv", tsv, read)
    yield Door("recsys parquet", "t.parquet", lambda f: table.write_parquet(f / "t.parquet"), read)
    yield Door("recsys libsvm", "t.libsvm", libsvm, read)

    def encoder(folder: Path) -> None:
        table.write_csv(folder / "t.csv")
        Encoder.fit(infer_schema(folder / "t.csv"), folder / "t.csv").save(
            folder / "encoder.parquet"
        )

    yield Door("recsys encoder", "encoder.parquet", encoder, Encoder.load)

    def schema(folder: Path) -> None:
        (folder / "s.yaml").write_text("columns: {user: {}, price: {kind: numeric}}\n")

    yield Door("recsys schema", "s.yaml", schema, Schema.read)

    def vectors(folder: Path) -> None:
        known = pl.DataFrame({"value": ["a", "b"], "vector": [[1.0, 2.0], [3.0, 4.0]]})
        known.write_parquet(folder / "v.parquet")

    yield Door("recsys vectors", "v.parquet", vectors, lambda path: _read(path, 2))


def wireless() -> Iterator[Door]:
    """Yield recordings of samples, and channels and layouts in arrays."""
    import h5py
    from scipy.io import savemat

    from sixfold.wireless.data.own_channels import read_channels
    from sixfold.wireless.data.own_mimo import CHANNELS, read_arrays
    from sixfold.wireless.iq.recordings import open_recording, write_recording
    from sixfold.wireless.models.icgnn.inference import run

    channel = np.random.default_rng(0).standard_normal((4, 6, 5, 2)).view(np.complex128)[..., 0]
    note = {"core:sample_start": 2, "core:sample_count": 9, "core:label": "x"}

    def recording(folder: Path) -> None:
        samples = channel.ravel() / 9
        write_recording(folder / "r.sigmf-meta", samples, sample_rate_hz=1e6, annotations=[note])

    def read(path: Path) -> None:
        found = open_recording(path)
        for capture in found.captures:
            found.read(capture, capture.first, min(capture.count, 1 << 20))

    yield Door("wireless metadata", "r.sigmf-meta", recording, read)
    yield Door("wireless samples", "r.sigmf-data", recording, read)
    npz = lambda f: np.savez(f / "c.npz", H=channel, snr_db=np.ones(4))  # noqa: E731
    yield Door("wireless npz", "c.npz", npz, read_channels)
    packed = lambda f: np.savez_compressed(f / "c.npz", H=channel)  # noqa: E731
    yield Door("wireless packed npz", "c.npz", packed, read_channels)
    mat, grid = "7_SNR-10_DS-100_DOP-200_N-3_TDL-A.mat", channel.transpose(1, 2, 0)[..., :2]
    yield Door("wireless mat", mat, lambda f: savemat(f / mat, {"H": grid}), read_channels)
    small = lambda f: savemat(f / mat, {"H": grid}, do_compression=True)  # noqa: E731
    yield Door("wireless packed mat", mat, small, read_channels)

    def hdf5(folder: Path) -> None:
        with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
            file["H"] = (
                channel.astype([("real", float), ("imag", float)]) if False else abs(channel)
            )
        head = b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM"
        with (folder / "a.mat").open("r+b") as file:
            file.write(head)

    arrays = lambda path: read_arrays(path, CHANNELS, ("H",))  # noqa: E731
    yield Door("wireless mat 7.3", "a.mat", hdf5, arrays)

    def npy(folder: Path) -> None:
        np.save(folder / "h.npy", channel[:, :, :3])

    precode = lambda path: run(  # noqa: E731
        path, path.with_name("out.npy"), noise_power_w=0.1, method="zf"
    )
    yield Door("wireless npy", "h.npy", npy, precode)


def pde() -> Iterator[Door]:
    """Yield flows in HDF5 files of the known layouts, in plain and compressed chunks."""
    import h5py

    from sixfold.pde.data.files import numbers_of, open_file, pieces, times, trajectories
    from sixfold.pde.data.layouts import open_flows

    noise = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype("f4")

    def read(path: Path) -> None:
        for block in open_flows(path):
            with open_file(path) as file:
                {name: value[()] for name, value in numbers_of(file, block).items()}
            for one in trajectories([block]):
                times(one)
                for _ in pieces(one):
                    pass

    def arena(folder: Path, **options: Any) -> None:
        with h5py.File(folder / "f.h5", "w") as file:
            group = file.create_group("train")
            for name in ("u", "vx", "vy"):
                group.create_dataset(name, data=noise, **options)
            group["t"] = np.tile(6.0 * np.arange(4), (2, 1))
            group["buo_y"] = np.ones(2)

    def bench(folder: Path) -> None:
        with h5py.File(folder / "f.h5", "w") as file:
            for name in ("density", "pressure", "Vx", "Vy"):
                file[name] = noise
            file["x-coordinate"] = file["y-coordinate"] = np.linspace(0, 1, 8)
            file["t-coordinate"] = 0.05 * np.arange(5)

    yield Door("pde PDEArena", "f.h5", arena, read)
    chunked: Any = {"chunks": (1, 2, 8, 8), "compression": "gzip", "shuffle": True}
    yield Door("pde chunks", "f.h5", lambda folder: arena(folder, **chunked), read)
    yield Door("pde PDEBench", "f.h5", bench, read)

    def well(folder: Path) -> None:
        with h5py.File(folder / "f.h5", "w") as file:
            file["dimensions/time"], file["dimensions/x"] = np.arange(4.0), np.arange(8.0)
            file["dimensions"].attrs["spatial_dims"] = ["x", "y"]
            file["t0_fields/u"] = noise
            file["t0_fields/u"].attrs.update(
                dim_varying=[True, True], sample_varying=True, time_varying=True
            )
            file["boundary_conditions/x"] = np.zeros(8)
            file["boundary_conditions/x"].attrs.update(bc_type="PERIODIC", associated_dims=["x"])

    yield Door("pde The Well", "f.h5", well, read)


DOMAINS = {
    "speech": speech,
    "vision": vision,
    "graphs": graphs,
    "recsys": recsys,
    "wireless": wireless,
    "pde": pde,
}


def damaged(good: bytes, seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield damaged contents with a word on what was done: the same ones for a seed."""
    random = np.random.default_rng(seed)
    size = len(good)
    yield from _replaced(good)
    for place in sorted({1, 4, 12, size // 3, size // 2, size - 9, size - 1} & set(range(size))):
        yield f"cut to {place} bytes", good[:place]
    for number in range(count):
        content = bytearray(good)
        if number % 3 == 0:  # a number in the header becomes huge, negative or nought
            at = int(random.integers(0, min(size - 4, 240)))
            value = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f"]
            content[at : at + 4] = value[random.integers(4)]
            yield f"word at {at} overwritten", bytes(content)
        elif number % 3 == 1:
            places = random.integers(0, size, int(random.integers(1, 4))).tolist()
            for at in places:
                content[at] ^= 1 << int(random.integers(8))
            yield f"bits flipped at {places}", bytes(content)
        else:
            at = int(random.integers(0, size))
            length = int(random.integers(1, 40))
            content[at : at + length] = random.bytes(int(random.integers(0, 40)))
            yield f"{length} bytes replaced at {at}", bytes(content)


def _replaced(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield other files under the name."""
    arrays = io.BytesIO()
    np.savez(arrays, H=np.array([{}, None], dtype=object))
    yield "empty", b""
    yield "nought", bytes(300)
    yield "a web page", b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n"
    yield "not UTF-8", b"id,\xff\xfe\n\x80\n" * 20
    yield "a pickle", pickle.dumps({"a": struct.Struct})
    yield "objects in npz", arrays.getvalue()
    yield "an LFS stub", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    yield "twice", good + good
    yield "behind noise", b"\x1b[31m\n" + good
