"""The published recordings: their homes, licences, and the checksum of every file."""

import csv
from importlib.resources import files

from sixfold.core.data.fetch import Dataset, File

_RAW = "https://raw.githubusercontent.com/"
# Download URL of a folder of the set.
_FOLDERS = {
    "urh": _RAW + "jopohl/urh/1403d92987cc3d01d41aff64250955ce455dabd2/tests/data/",
    "dump1090": _RAW + "antirez/dump1090/efe64db3c6ba1520291331628a33c1e208e851a6/testfiles/",
}


def _file(row: dict[str, str]) -> File:
    folder, _, name = row["path"].partition("/")
    return File(row["path"], row["sha256"], int(row["bytes"]), _FOLDERS[folder] + name)


def _published_files() -> tuple[File, ...]:
    table = (files("sixfold.wireless.data") / "checksums.csv").read_text(encoding="utf-8")
    return tuple(_file(row) for row in csv.DictReader(table.splitlines()))


# Real captures, without labels: remote controls, sensors, air traffic.
OTA_IQ = Dataset(
    name="ota_iq",
    home="https://github.com/jopohl/urh and https://github.com/antirez/dump1090",
    licence="GPL-3.0 (urh), BSD-3-Clause (dump1090)",
    citation="Pohl, Noack: Universal Radio Hacker, WOOT 2018; Sanfilippo: dump1090, 2012",
    files=_published_files(),
)
