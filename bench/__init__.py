"""Load generator, engine and pipeline benchmarks, and the peers they are held against."""
