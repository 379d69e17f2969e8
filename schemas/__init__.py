"""Records, votes, answers, cascades and settings as frozen Structs; codecs; the error tree."""
