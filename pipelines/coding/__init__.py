"""Files to codes and back: encode, decode, reconstruct, convert. Sampling from a prior lives in `generate`."""
