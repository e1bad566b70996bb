"""
Features as a table
===================

Puts the features of several photographs into one pandas table, a row for each feature, and asks it some questions.
For more photographs than fit into memory, `gpusift extract photographs -o features.parquet` writes a table to disk.
"""

import pandas as pd
import skimage.data

from gpusift import SIFT

photographs = {"camera": skimage.data.camera(), "coins": skimage.data.coins(), "moon": skimage.data.moon()}

sift = SIFT()
tables = []
for name, features in zip(photographs, sift.compute_batch(list(photographs.values())), strict=True):
    host = features.to_host()
    tables.append(
        pd.DataFrame(
            {
                "image": name,
                "row": host.positions[:, 0],  # input pixels; the centre of the upper left pixel is (0, 0)
                "column": host.positions[:, 1],
                "sigma": host.sigmas,  # input pixels
                "orientation": host.orientations,  # radians
                "octave": host.octaves,
                "response": host.responses,
                "descriptor": list(host.descriptors),  # 128 bytes each
            }
        )
    )
table = pd.concat(tables, ignore_index=True)

print(table.groupby("image").agg(features=("sigma", "size"), median_sigma=("sigma", "median")).round(2))
strongest = table.loc[table["response"].abs().groupby(table["image"]).idxmax()]
print(strongest[["image", "row", "column", "sigma", "response"]].round(2).to_string(index=False))
table.to_pickle("features.pkl")
print(f"features.pkl: {len(table)} features")
