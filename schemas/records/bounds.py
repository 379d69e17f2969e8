"""Numbers and names as records, settings and cascade files bound them.

A decoder checks them as it decodes, which costs a comparison each, and refuses what lies outside
with the path of the field and what was expected. Every bound on a number also keeps out NaN, which
compares with nothing.

Records come from anyone who may write to the log. Their bounds are wider than what the product
itself writes, and wide enough that sums, differences and products of what passes stay finite.
"""

from typing import Annotated

from msgspec import Meta

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Share = Annotated[float, Meta(ge=0, le=1)]
# TOML knows nan and inf; the bounds keep both out.
Finite = Annotated[float, Meta(ge=-1e9, le=1e9)]
NonNegative = Annotated[float, Meta(ge=0, le=1e9)]
Positive = Annotated[float, Meta(gt=0, le=1e9)]
PositiveInt = Annotated[int, Meta(ge=1)]
Probability = Annotated[float, Meta(gt=0, lt=1)]

# The years −1199 to 5138, in seconds since the epoch.
MOST_TIME = 1e11
Time = Annotated[float, Meta(ge=-MOST_TIME, le=MOST_TIME)]
# A difference of two such times fits; below 0 where the clocks of two hosts differed.
Seconds = Annotated[float, Meta(ge=-1e12, le=1e12)]
Latitude = Annotated[float, Meta(ge=-90, le=90)]
Longitude = Annotated[float, Meta(ge=-180, le=180)]
# Whatever a model gives, but infinity: the largest double.
Raw = Annotated[float, Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]
# In widths or heights of the picture: a box may lie partly outside of it.
MOST_COORDINATE = 1e6
Coordinate = Annotated[float, Meta(ge=-MOST_COORDINATE, le=MOST_COORDINATE)]
# What SQLite and Parquet can hold, and a log counts offsets in.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
# Of a place where a group stands: −1 is none yet.
Offset = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
Partition = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# In characters. A path has at most 4,096 bytes, which escapes make four times as many.
MOST_ID, MOST_URI, MOST_TEXT = 4096, 32_768, 65_536
ImageId = Annotated[str, Meta(min_length=1, max_length=MOST_ID)]
Word = Annotated[str, Meta(max_length=MOST_ID)]
# In a cascade file: less than a record's words, as more may be put behind it.
Short = Annotated[str, Meta(max_length=1024)]
# What a member says of an image in a word, such as ``weather=rain``; the value in characters.
MOST_TAG, MOST_TAGS = 256, 32
TAG_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
TagName = Annotated[str, Meta(pattern=TAG_NAME)]
TagValue = Annotated[str, Meta(max_length=MOST_TAG)]
Tags = Annotated[dict[TagName, TagValue], Meta(max_length=MOST_TAGS)]
TagCondition = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(=[\s\S]{0,256})?$")]
TagText = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}=[\s\S]{0,256}$")]
Uri = Annotated[str, Meta(max_length=MOST_URI)]
Text = Annotated[str, Meta(max_length=MOST_TEXT)]
Digest = Annotated[bytes, Meta(min_length=1, max_length=64)]
