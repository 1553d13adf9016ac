"""The fields of published trainings, with the sizes of their vocabularies, padding and unknown in.

Where only the sum of a set's vocabularies is published (it follows from the parameter counts), it
is spread evenly over the fields: the counts hold, the single sizes are not those of the set.
"""

from collections.abc import Iterable, Sequence

from sixfold.recsys.layers.fields import Field


def categorical(**sizes: int) -> tuple[Field, ...]:
    """Make categorical fields of these numbers of rows."""
    return tuple(Field(name=name, vocab_size=size) for name, size in sizes.items())


def spread(names: Sequence[str], rows: int, sequences: Iterable[str] = ()) -> tuple[Field, ...]:
    """Make fields that have so many rows together, spread evenly."""
    each, more = divmod(rows, len(names))
    return tuple(
        Field(
            name=name,
            kind="sequence" if name in sequences else "categorical",
            vocab_size=each + (number < more),
        )
        for number, name in enumerate(names)
    )


def numbered(prefix: str, count: int) -> list[str]:
    """Name columns by number, from 1 on."""
    return [f"{prefix}{number}" for number in range(1, count + 1)]


def criteo(rows: int) -> tuple[Field, ...]:
    """Make Criteo's thirteen numbers and 26 categories; C6, a context of FinalMLP, has 23 rows."""
    others = spread([name for name in numbered("C", 26) if name != "C6"], rows - 23)
    sizes = {field.name: field.vocab_size for field in others} | {"C6": 23}
    numbers = [Field(name=name, kind="numeric") for name in numbered("I", 13)]
    return (*numbers, *(Field(name=name, vocab_size=sizes[name]) for name in numbered("C", 26)))


# As read in the log of Frappe_x1, and counted in 51,949 rows of its validation split.
FRAPPE = categorical(
    user=956, item=4084, daytime=9, weekday=9, isweekend=4,
    homework=5, cost=4, weather=11, country=82, city=235,
)  # fmt: skip
FRAPPE_SMALL = categorical(
    user=878, item=4084, daytime=9, weekday=9, isweekend=4,
    homework=5, cost=4, weather=11, country=77, city=223,
)  # fmt: skip
MOVIELENS_TAGS = spread(["user_id", "item_id", "tag_id"], 90_242)
CRITEO_X1 = criteo(2_086_329)
CRITEO_X4 = spread(numbered("I", 13) + numbered("C", 26), 910_747)
AVAZU_X1 = spread(numbered("feat_", 22), 1_298_621)
AVAZU_X4 = spread(
    ["hour", "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain",
     "app_category", "device_id", "device_ip", "device_model", "device_type", "device_conn_type",
     *(f"C{number}" for number in range(14, 22)), "weekday", "weekend"],
    3_750_999,
)  # fmt: skip
KKBOX = spread(
    ["msno", "song_id", "source_system_tab", "source_screen_name", "source_type", "city", "gender",
     "registered_via", "language", "genre_ids", "artist_name", "isrc", "bd"],
    91_756,
    sequences=("genre_ids", "artist_name"),
)  # fmt: skip
MOVIELENS_1M = spread(
    ["UserID", "Gender", "Age", "Occupation", "MovieID", "Release", "Genres"],
    9_751,
    sequences=("Genres",),
)
KDD12 = spread(numbered("field_", 13), 4_668_096)
IPINYOU = spread(numbered("field_", 16), 665_765)
