// Alignment of patches: the affine map between the surroundings of two matched keypoints, and with it the position of
// the second keypoint to a tenth of a pixel (inverse compositional algorithm; Baker & Matthews 2004, Fig. 4).
//
// A template holds TEMPLATE_SIDE x TEMPLATE_SIDE samples around the first keypoint, `spacing` sigmas apart, with their
// gradients. Let T(u) be the template and I(x) the level of the second image, both with weighted mean 0 and weighted
// variance 1, so that brightness and contrast do not matter. x(u) = position + map u is found by
//
//     d = H^-1 sum_u w(u) J(u) (I(x(u)) - T(u)),   H = sum_u w(u) J(u) J(u)^T,   J = dT / d(shift, matrix),
//     x(u) <- x(d^-1(u)),   d(u) = u + shift + matrix u,
//
// repeated n_steps times, from the rotation and scale of the two keypoints, and their affine shapes if they have some.
// w is a Gaussian, but 0 for samples outside or within MARGIN of the border of either image (of the second under the
// first x(u)). H is that of the template, so it is made once. All sums have a fixed order.
#include "alignment.cuh"

// The templates of keypoints; one block each.
//
//     levels     flat                all octaves' levels of the image
//     octaves    (n_octaves, 8)      see octave.cuh
//     in_octave, in_scale (n,)       the level to sample: octave, and level within it
//     positions  (n, 2)              row, column, input pixels
//     sigmas     (n,)                input pixels
//     delta_min                      distance of the first octave's samples, input pixels
//     spacing                        between the samples of a template, sigmas
//     templates  (n, 3, TEMPLATE_SAMPLES)   values, and derivatives by row and by column, of intensity by sigma
//     inside     (n, TEMPLATE_SAMPLES)   1 for samples inside the margin of the image, otherwise 0
KERNEL sample_templates(const real* __restrict__ levels, const long long* __restrict__ octaves,
                        const int* __restrict__ in_octave, const int* __restrict__ in_scale,
                        const real* __restrict__ positions, const real* __restrict__ sigmas, const int n,
                        const real delta_min, const real spacing, real* __restrict__ templates,
                        unsigned char* __restrict__ inside) {
    for (int t = blockIdx.x; t < n; t += gridDim.x) {
        const LevelView level = level_view(levels, octaves, in_octave[t], in_scale[t]);
        const real delta = delta_min * real(1LL << in_octave[t]), sigma = sigmas[t] / delta;
        const Affine map = similarity(positions[2 * t] / delta, positions[2 * t + 1] / delta, real(0), sigma);
        const long long first_sample = (long long)TEMPLATE_SAMPLES * t;
        real* out = templates + 3 * first_sample;
        for_each_sample([&](int i, real row, real col) {
            const Point at = map.at(row * spacing, col * spacing);
            const Interpolated sample = interpolate(level, at);
            out[i] = sample.value;
            out[TEMPLATE_SAMPLES + i] = sample.by_row * sigma;
            out[2 * TEMPLATE_SAMPLES + i] = sample.by_col * sigma;
            inside[first_sample + i] = level.has(at, MARGIN * sigma);
        });
    }
}

// Aligns templates with the surroundings of the keypoints that they match; one block each.
//
//     levels, octaves, in_octave, in_scale, positions, sigmas   as above, of the second image and its keypoints
//     turns      (n,)                orientation of the second keypoint less that of the first, radians
//     templates, inside              of the first keypoints, as above
//     first_shapes, shapes (n, 2, 2)     affine shapes of the first and second keypoints; not read if SHAPED is 0
//     n_steps                        of the algorithm
//     max_shift                      largest distance from the second keypoint, sigmas
//     min_correlation                least weighted correlation of the aligned patch with the template
//     refined    (n, 2)              row, column, input pixels; `positions` where not aligned
//     maps       (n, 4)              matrix from sigmas of the template to input pixels, row by row
//     correlations (n,)              0 where not aligned
//     aligned    (n,)                1 if the template was aligned, otherwise 0
KERNEL_OF(SHAPED) align_templates(const real* __restrict__ levels, const long long* __restrict__ octaves,
                                  const int* __restrict__ in_octave, const int* __restrict__ in_scale,
                                  const real* __restrict__ positions, const real* __restrict__ sigmas,
                                  const real* __restrict__ turns, const real* __restrict__ first_shapes,
                                  const real* __restrict__ shapes, const real* __restrict__ templates,
                                  const unsigned char* __restrict__ inside, const int n, const real delta_min,
                                  const real spacing, const int n_steps, const real max_shift,
                                  const real min_correlation, real* __restrict__ refined, real* __restrict__ maps,
                                  real* __restrict__ correlations, int* __restrict__ aligned) {
    __shared__ Alignment shared;
    const bool first = threadIdx.x == 0 && threadIdx.y == 0;
    set_gaussian(shared);
    for (int t = blockIdx.x; t < n; t += gridDim.x) {
        const LevelView level = level_view(levels, octaves, in_octave[t], in_scale[t]);
        const real delta = delta_min * real(1LL << in_octave[t]), sigma = sigmas[t] / delta;
        const Affine turned = similarity(positions[2 * t] / delta, positions[2 * t + 1] / delta, turns[t], sigma);
        const Affine start = between(turned, shape_at<SHAPED>(first_shapes, t), shape_at<SHAPED>(shapes, t));
        __syncthreads();
        if (first) shared.map = start;
        const long long first_sample = (long long)TEMPLATE_SAMPLES * t;
        bool done = set_weights(shared, inside + first_sample, level, start, spacing, MARGIN * sigma) &&
                    set_template(shared, templates + 3 * first_sample, spacing) &&
                    align(shared, level, spacing, n_steps) && set_patch(shared, level, spacing);
        if (done)
            sum_samples(shared, 1,
                        [&](int, int i) { return shared.weights[i] * (shared.pattern[i] * shared.patch[i]); });
        const real correlation = done ? shared.sums[0] : real(0);
        const Affine end = done ? shared.map : start;
        const real down = end.row - start.row, right = end.col - start.col;
        done = done && level.has(end.at(0, 0), 0) && correlation > min_correlation &&
               down * down + right * right < (max_shift * sigma) * (max_shift * sigma);
        if (!first) continue;
        const Affine map = done ? end : start;
        refined[2 * t] = done ? map.row * delta : positions[2 * t];
        refined[2 * t + 1] = done ? map.col * delta : positions[2 * t + 1];
        maps[4 * t] = map.rr * delta, maps[4 * t + 1] = map.rc * delta;
        maps[4 * t + 2] = map.cr * delta, maps[4 * t + 3] = map.cc * delta;
        correlations[t] = done ? correlation : real(0);
        aligned[t] = done;
    }
}
