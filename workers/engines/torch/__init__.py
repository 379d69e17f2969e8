"""Torch models: any checkpoint of a known family, on a CPU or a CUDA device."""
