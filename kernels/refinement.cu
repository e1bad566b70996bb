// Refinement of the candidates to fractions of a sample, and the tests on them (Otero & Delbracio 2014, Alg. 5 to 9).
//
// A candidate moves to the extremum of the quadric through its 27 neighbours, and is a keypoint if it stays there, is
// strong, does not lie on an edge, and lies inside the image:
//
//     offset = -H^-1 g;  a sample further wherever |offset| > max_offset, at most max_steps - 1 times      (Alg. 6, 7)
//     response = D + g . offset / 2;  |response| > c_dog                                                  (Alg. 8)
//     least_edgeness <= trace(H_2)^2 / det(H_2) <= edge_threshold                                          (Alg. 9)
//     position = (sample + offset) delta;  sigma = sigma_s 2^(offset_s / n_scales)
//     margin sigma + border delta < position < shape - margin sigma - border delta
//
// The rules of VLFeat and OpenCV, see ExtremumRule in parameters.py, have other offsets, no saddles (least_edgeness is
// 0) and other distances from the edges.
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

// The quadric through the 27 differences around a sample: its value, the parts of its gradient and Hessian that are
// used later, and the offset of its extremum from the sample; indices 0, 1, 2 are row, column and scale.
struct Quadric {
    real value, g0, g1, g2, h00, h11, h01, offset_0, offset_1, offset_2;
};

DEVICE Quadric quadric_through(const DoG& d) {
    const real value = d(0, 0, 0);
    const real g0 = (d(1, 0, 0) - d(-1, 0, 0)) * real(0.5);
    const real g1 = (d(0, 1, 0) - d(0, -1, 0)) * real(0.5);
    const real g2 = (d(0, 0, 1) - d(0, 0, -1)) * real(0.5);
    const real h00 = d(-1, 0, 0) + d(1, 0, 0) - 2 * value;
    const real h11 = d(0, -1, 0) + d(0, 1, 0) - 2 * value;
    const real h22 = d(0, 0, -1) + d(0, 0, 1) - 2 * value;
    const real h01 = real(0.25) * (d(1, 1, 0) - d(-1, 1, 0) - d(1, -1, 0) + d(-1, -1, 0));
    const real h02 = real(0.25) * (d(1, 0, 1) - d(1, 0, -1) + d(-1, 0, -1) - d(-1, 0, 1));
    const real h12 = real(0.25) * (d(0, 1, 1) - d(0, 1, -1) + d(0, -1, -1) - d(0, -1, 1));
    const real det = h00 * h11 * h22 - h00 * h12 * h12 - h01 * h01 * h22 + 2 * h01 * h02 * h12 - h02 * h02 * h11;
    const real aa = (h11 * h22 - h12 * h12) / det, ab = (h02 * h12 - h01 * h22) / det;
    const real ac = (h01 * h12 - h02 * h11) / det, bb = (h00 * h22 - h02 * h02) / det;
    const real bc = (h01 * h02 - h00 * h12) / det, cc = (h00 * h11 - h01 * h01) / det;
    return {value,
            g0,
            g1,
            g2,
            h00,
            h11,
            h01,
            -aa * g0 - ab * g1 - ac * g2,
            -ab * g0 - bb * g1 - bc * g2,
            -ac * g0 - bc * g1 - cc * g2};
}

// Moves a candidate by one sample along each axis on which the extremum is more than max_offset away, unless it would
// leave the inside of the octave or, along the scale, unless `in_scale`; returns whether it moved.
DEVICE bool move(Candidate* candidate, const Quadric& q, const Octave& octave, int n_scales, real max_offset,
                 bool in_scale) {
    const int row = candidate->row, col = candidate->col, s = candidate->scale;
    const int row_move =
        (q.offset_0 > max_offset && row + 1 < octave.rows - 1) - (q.offset_0 < -max_offset && row - 1 > 0);
    const int col_move =
        (q.offset_1 > max_offset && col + 1 < octave.cols - 1) - (q.offset_1 < -max_offset && col - 1 > 0);
    const int s_move =
        in_scale * ((q.offset_2 > max_offset && s + 1 < n_scales + 1) - (q.offset_2 < -max_offset && s - 1 > 0));
    candidate->row += row_move;
    candidate->col += col_move;
    candidate->scale += s_move;
    return row_move || col_move || s_move;
}

// Whether a quadric's extremum is within accepted_offset, strong enough, and not on an edge (Alg. 7 to 9). Every
// comparison is false for a NaN, which a singular Hessian gives.
DEVICE bool is_stable(const Quadric& q, real response, real accepted_offset, real c_dog, real least_edgeness,
                      real edge_threshold) {
    const real trace = q.h00 + q.h11, edgeness = trace * trace / (q.h00 * q.h11 - q.h01 * q.h01);
    return magnitude_of(q.offset_0) < accepted_offset && magnitude_of(q.offset_1) < accepted_offset &&
           magnitude_of(q.offset_2) < accepted_offset && magnitude_of(response) > c_dog && edgeness >= least_edgeness &&
           edgeness <= edge_threshold;
}

// Whether the mask, of integers of some bytes, is nonzero at the pixel nearest to a position.
DEVICE bool is_allowed(const unsigned char* __restrict__ mask, int bytes, int rows, int cols, real row, real col) {
    const int mask_row = larger(0, whole_within(nearest_to(row), rows - 1));
    const int mask_col = larger(0, whole_within(nearest_to(col), cols - 1));
    const unsigned char* value = mask + ((long long)mask_row * cols + mask_col) * bytes;
    int any = 0;
    for (int i = 0; i < bytes; ++i) any |= value[i];
    return any != 0;
}

// Refines the candidates of a list.
//
//     levels     flat                all octaves' levels, images stride samples apart
//     octaves    (n_octaves, 8)      see octave.cuh
//     keys       (images, capacity)  of the candidates; a block takes keys_per_block of them at a time
//     length     (images,)           number of keys
//     level_sigmas (n_octaves, n_scales + 3)   sigma of each level, input pixels
//     delta_min                      sampling distance of the first octave, input pixels
//     image_rows, image_cols         shape of the input image
//     max_steps                      samples that are tried
//     max_offset                     largest offset that does not move a candidate, samples
//     moves_in_scale                 0 or 1
//     accepted_offset                largest offset of a keypoint from its last sample, samples
//     c_dog                          least magnitude of a response, intensity
//     least_edgeness, edge_threshold bounds of edgeness
//     margin, border                 least distance of a keypoint from the image's edges: sigmas, and octave samples
//     mask       (image_rows, image_cols)   integers, nonzero where keypoints are allowed
//     mask_bytes                     of an integer of the mask; 0 if there is no mask
//     bias                           subtracted from positions before the mask is read, input pixels
//     accepted   (images, capacity)  1 if kept, otherwise 0
//     positions  (images, capacity, 2)   row, column, input pixels
//     sigmas     (images, capacity)  input pixels
//     responses  (images, capacity)  interpolated difference of Gaussians, intensity
//     in_octave, in_scale (images, capacity)   octave, and scale index within it
KERNEL refine(const real* __restrict__ levels, const long long stride, const long long* __restrict__ octaves,
              const long long* __restrict__ keys, const int* __restrict__ length, const int capacity,
              const int keys_per_block, const real* __restrict__ level_sigmas, const int n_scales, const real delta_min,
              const int image_rows, const int image_cols, const int max_steps, const real max_offset,
              const int moves_in_scale, const real accepted_offset, const real c_dog, const real least_edgeness,
              const real edge_threshold, const real margin, const real border, const unsigned char* __restrict__ mask,
              const int mask_bytes, const real bias, int* __restrict__ accepted, real* __restrict__ positions,
              real* __restrict__ sigmas, real* __restrict__ responses, int* __restrict__ in_octave,
              int* __restrict__ in_scale) {
    const long long image = blockIdx.z;
    levels += image * stride;
    for (int turn = threadIdx.x;; turn += blockDim.x) {
        const int of_block = (turn / keys_per_block * gridDim.x + blockIdx.x) * keys_per_block;
        if (of_block >= length[image]) break;
        const int in_list = of_block + turn % keys_per_block;
        if (in_list >= length[image]) continue;
        const long long i = image * capacity + in_list;
        Candidate at = candidate_of(keys[i]);
        const Octave octave = octave_of(octaves, at.octave);
        Quadric q;
        for (int step = 1;; ++step) {
            const real* sample = levels + octave.offset + at.scale * octave.plane;
            q = quadric_through({sample + (long long)at.row * octave.pitch + at.col, octave.pitch, octave.plane});
            if (step == max_steps || !move(&at, q, octave, n_scales, max_offset, moves_in_scale)) break;
        }

        const real delta = delta_min * real(1LL << at.octave);
        const real row = (real(at.row) + q.offset_0) * delta, col = (real(at.col) + q.offset_1) * delta;
        const real level_sigma = level_sigmas[at.octave * (n_scales + 3) + at.scale];
        const real sigma = level_sigma * power_of_two(q.offset_2 / real(n_scales));
        const real half = real(0.5);
        const real response = q.value + half * q.g0 * q.offset_0 + half * q.g1 * q.offset_1 + half * q.g2 * q.offset_2;
        const real away = margin * sigma + border * delta;
        const bool keep = is_stable(q, response, accepted_offset, c_dog, least_edgeness, edge_threshold) &&
                          row - away > 0 && col - away > 0 && row + away < real(image_rows) &&
                          col + away < real(image_cols);
        accepted[i] =
            keep && (mask_bytes == 0 || is_allowed(mask, mask_bytes, image_rows, image_cols, row - bias, col - bias));
        positions[2 * i] = row;
        positions[2 * i + 1] = col;
        sigmas[i] = sigma;
        responses[i] = response;
        in_octave[i] = at.octave;
        in_scale[i] = at.scale;
    }
}
