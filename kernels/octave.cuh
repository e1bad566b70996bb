// What the kernels know of an octave, and of a candidate in it.
#pragma once
#include "arithmetic.cuh"

// One octave of the scale space: its levels, each of `rows` rows of `cols` samples, `pitch` samples apart, lie `plane`
// samples apart in the flat buffer. Row 0 of level 0 is, or would be, at `offset`: a strip of a large image holds only
// some rows. Its extrema are looked for in the rows from `begin` to before `end`. Of the rows of all octaves, one
// octave after the other, its first is number `first_row`.
struct Octave {
    long long offset, plane;
    int rows, cols, pitch, first_row, begin, end;
};

#define OCTAVE_COLUMNS 8

// octaves: (n_octaves, 8) of offset, rows, cols, pitch, plane, first_row, begin, end
DEVICE Octave octave_of(const long long* __restrict__ octaves, int o) {
    const long long* row = octaves + OCTAVE_COLUMNS * o;
    return {row[0], row[4], int(row[1]), int(row[2]), int(row[3]), int(row[5]), int(row[6]), int(row[7])};
}

// A candidate, a sample of the difference of Gaussians: its octave, and row, column and scale within that.
struct Candidate {
    int octave, row, col, scale;
};

// A candidate as one number that sorts as scikit-image orders keypoints: octave, row, column, scale, in 6, 26, 26 and 6
// bits.
DEVICE long long key_of(Candidate candidate) {
    return (long long)candidate.octave << 58 | (long long)candidate.row << 32 | (long long)candidate.col << 6 |
           candidate.scale;
}

DEVICE Candidate candidate_of(long long key) {
    const int side = (1 << 26) - 1;
    return {int(key >> 58), int(key >> 32) & side, int(key >> 6) & side, int(key) & 63};
}
