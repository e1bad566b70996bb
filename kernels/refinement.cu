// Refinement of the candidates to fractions of a sample, and the tests on them (Otero & Delbracio 2014, Alg. 5 to 9).
#include "octave.cuh"

// The difference of Gaussians around one sample; rows, columns and scales away from it.
struct DoG {
    const real* here;  // the sample in the level below
    long long pitch, plane;
    DEVICE_MEMBER real operator()(int row, int col, int scale) const {
        const long long at = scale * plane + row * pitch + col;
        return here[at + plane] - here[at];
    }
};

// Moves each candidate to the extremum of the quadric through its 27 neighbours, and keeps it if it stays there, is
// strong, does not lie on an edge, and lies one sigma inside the image:
//
//     offset = -H^-1 g;  a sample further wherever |offset| > max_offset, at most max_steps - 1 times      (Alg. 6, 7)
//     response = D + g . offset / 2;  |response| > c_dog                                                  (Alg. 8)
//     |trace(H_2)^2 / det(H_2)| <= edge_threshold                                                          (Alg. 9)
//     position = (sample + offset) delta;  sigma = sigma_s 2^(offset_s / n_scales)
//     sigma < position < shape - sigma
//
//     levels     flat                all octaves' levels, images stride samples apart
//     octaves    (n_octaves, 8)      see octave.cuh
//     keys       (images, capacity)  packed octave, row, column, scale; a block takes keys_per_block of them at a time
//     length     (images,)           number of keys
//     level_sigmas (n_octaves, n_scales + 3)   sigma of each level, input pixels
//     delta_min                      distance of the first octave's samples, input pixels
//     image_rows, image_cols         shape of the input image
//     mask       (image_rows, image_cols)   not zero where keypoints may be, at the pixel nearest to them
//     masked                         0: there is none
//     bias                           of the positions, input pixels, for the mask
//     accepted   (images, capacity)  1 if kept, otherwise 0
//     positions  (images, capacity, 2)   row, column, input pixels
//     sigmas     (images, capacity)  input pixels
//     responses  (images, capacity)  interpolated difference of Gaussians, intensity
//     in_octave, in_scale (images, capacity)   octave, and scale index within it
KERNEL refine(const real* __restrict__ levels, const long long stride, const long long* __restrict__ octaves,
              const long long* __restrict__ keys, const int* __restrict__ length, const int capacity,
              const int keys_per_block, const real* __restrict__ level_sigmas, const int n_scales, const real delta_min,
              const int image_rows, const int image_cols, const int max_steps, const real max_offset, const real c_dog,
              const real edge_threshold, const unsigned char* __restrict__ mask, const int masked, const real bias,
              int* __restrict__ accepted, real* __restrict__ positions, real* __restrict__ sigmas,
              real* __restrict__ responses, int* __restrict__ in_octave, int* __restrict__ in_scale) {
    const long long image = blockIdx.z;
    levels += image * stride;
    for (int turn = threadIdx.x;; turn += blockDim.x) {
        const int of_block = (turn / keys_per_block * gridDim.x + blockIdx.x) * keys_per_block;
        if (of_block >= length[image]) break;
        const int in_list = of_block + turn % keys_per_block;
        if (in_list >= length[image]) continue;
        const long long i = image * capacity + in_list;
        const Candidate candidate = candidate_of(keys[i]);
        const int o = candidate.octave;
        int row = candidate.row, col = candidate.col, s = candidate.scale;
        const Octave octave = octave_of(octaves, o);
        const long long plane = octave.plane;

        real g0, g1, g2, h00, h11, h01, value, offset_0, offset_1, offset_2;
        for (int step = 1;; ++step) {
            const DoG d{levels + octave.offset + s * plane + (long long)row * octave.pitch + col, octave.pitch, plane};
            value = d(0, 0, 0);
            g0 = (d(1, 0, 0) - d(-1, 0, 0)) * real(0.5);
            g1 = (d(0, 1, 0) - d(0, -1, 0)) * real(0.5);
            g2 = (d(0, 0, 1) - d(0, 0, -1)) * real(0.5);
            h00 = d(-1, 0, 0) + d(1, 0, 0) - 2 * value;
            h11 = d(0, -1, 0) + d(0, 1, 0) - 2 * value;
            const real h22 = d(0, 0, -1) + d(0, 0, 1) - 2 * value;
            h01 = real(0.25) * (d(1, 1, 0) - d(-1, 1, 0) - d(1, -1, 0) + d(-1, -1, 0));
            const real h02 = real(0.25) * (d(1, 0, 1) - d(1, 0, -1) + d(-1, 0, -1) - d(-1, 0, 1));
            const real h12 = real(0.25) * (d(0, 1, 1) - d(0, 1, -1) + d(0, -1, -1) - d(0, -1, 1));
            const real det =
                h00 * h11 * h22 - h00 * h12 * h12 - h01 * h01 * h22 + 2 * h01 * h02 * h12 - h02 * h02 * h11;
            const real aa = (h11 * h22 - h12 * h12) / det, ab = (h02 * h12 - h01 * h22) / det;
            const real ac = (h01 * h12 - h02 * h11) / det, bb = (h00 * h22 - h02 * h02) / det;
            const real bc = (h01 * h02 - h00 * h12) / det, cc = (h00 * h11 - h01 * h01) / det;
            offset_0 = -aa * g0 - ab * g1 - ac * g2;
            offset_1 = -ab * g0 - bb * g1 - bc * g2;
            offset_2 = -ac * g0 - bc * g1 - cc * g2;
            if (step == max_steps) break;
            const int row_move =
                (offset_0 > max_offset && row + 1 < octave.rows - 1) - (offset_0 < -max_offset && row - 1 > 0);
            const int col_move =
                (offset_1 > max_offset && col + 1 < octave.cols - 1) - (offset_1 < -max_offset && col - 1 > 0);
            const int s_move = (offset_2 > max_offset && s + 1 < n_scales + 1) - (offset_2 < -max_offset && s - 1 > 0);
            if (!row_move && !col_move && !s_move) break;
            row += row_move;
            col += col_move;
            s += s_move;
        }

        const real response = value + real(0.5) * g0 * offset_0 + real(0.5) * g1 * offset_1 + real(0.5) * g2 * offset_2;
        const real trace = h00 + h11, edgeness = trace * trace / (h00 * h11 - h01 * h01);
        const real delta = delta_min * real(1LL << o);
        const real at_row = (real(row) + offset_0) * delta, at_col = (real(col) + offset_1) * delta;
        const real sigma = level_sigmas[o * (n_scales + 3) + s] * power_of_two(offset_2 / real(n_scales));
        // every comparison is false for a NaN, which a singular Hessian gives
        bool keep = magnitude_of(offset_0) < max_offset && magnitude_of(offset_1) < max_offset &&
                    magnitude_of(offset_2) < max_offset && magnitude_of(response) > c_dog &&
                    magnitude_of(edgeness) <= edge_threshold && at_row - sigma > 0 && at_col - sigma > 0 &&
                    at_row + sigma < real(image_rows) && at_col + sigma < real(image_cols);
        if (keep && masked) {
            const int mask_row = larger(0, whole_within(nearest_to(at_row - bias), image_rows - 1));
            const int mask_col = larger(0, whole_within(nearest_to(at_col - bias), image_cols - 1));
            keep = mask[(long long)mask_row * image_cols + mask_col] != 0;
        }
        accepted[i] = keep;
        positions[2 * i] = at_row;
        positions[2 * i + 1] = at_col;
        sigmas[i] = sigma;
        responses[i] = response;
        in_octave[i] = o;
        in_scale[i] = s;
    }
}
