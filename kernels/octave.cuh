// An octave of the scale space, and the key of a candidate.
#pragma once
#include "arithmetic.cuh"

// One octave. All octaves' levels lie in one flat buffer; positions and distances are in samples.
//
//     offset      position of row 0 of level 0; that row may be missing, as a strip of a large image has only some rows
//     plane       distance from one level to the next
//     pitch       distance from one row to the next
//     first_row   number of its row 0 among the rows of all octaves, in the order of the octaves
//     begin, end  rows [begin, end) are searched for extrema
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

// A candidate: a sample of the difference of Gaussians, by its octave, and row, column and scale in the octave.
struct Candidate {
    int octave, row, col, scale;
};

// A candidate as one number: octave, row, column and scale in 6, 26, 26 and 6 bits. Keys sort in the order in which
// scikit-image returns keypoints.
DEVICE long long key_of(Candidate candidate) {
    return (long long)candidate.octave << 58 | (long long)candidate.row << 32 | (long long)candidate.col << 6 |
           candidate.scale;
}

DEVICE Candidate candidate_of(long long key) {
    const int side = (1 << 26) - 1;
    return {int(key >> 58), int(key >> 32) & side, int(key >> 6) & side, int(key) & 63};
}
