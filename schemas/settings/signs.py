"""What signs say at roadwork and where it ends, unless a member names other texts."""

SIGNS_FOR = (
    # English
    "road work",
    "roadwork",
    "road works",
    "roadworks",
    "work zone",
    "road construction",
    "construction ahead",
    "construction zone",
    "utility work",
    "workers ahead",
    "men at work",
    "men working",
    "flagger ahead",
    "detour",
    "diversion",
    # German
    "baustelle",
    "bauarbeiten",
    "strassenarbeiten",
    "umleitung",
    # French
    "travaux",
    "chantier",
    "deviation",
    # Spanish, Portuguese
    "obras",
    "desvio",
    # Italian
    "lavori in corso",
    "deviazione",
    # Dutch
    "wegwerkzaamheden",
    "werk in uitvoering",
    "omleiding",
    # Polish
    "roboty drogowe",
    "objazd",
)
"""Texts that mean roadwork, as `roadstream.stages.rules.signs` compares them."""

SIGNS_AGAINST = (
    "end road work",
    "end roadwork",
    "end of roadwork",
    "end of road work",
    "end road works",
    "end of road works",
    "end of roadworks",
    "road work ends",
    "end work zone",
    "end of work zone",
    "end construction",
    "end road construction",
    "end construction zone",
    "end detour",
    "diversion ends",
    "ende baustelle",
    "ende der baustelle",
    "ende der bauarbeiten",
    "ende umleitung",
    "fin de travaux",
    "fin des travaux",
    "fin de chantier",
    "fin deviation",
    "fin de obras",
    "fin obras",
    "fim de obras",
    "fin desvio",
    "fine lavori",
    "fine deviazione",
    "einde wegwerkzaamheden",
    "einde werkzaamheden",
    "einde werk in uitvoering",
    "einde omleiding",
    "koniec robot drogowych",
    "koniec objazdu",
)
"""Texts that mean that a work zone ends."""
