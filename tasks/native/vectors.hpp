// Arithmetic on vectors of 16 floats.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>

#include "memory.hpp"

namespace native {

constexpr float LARGEST = 127.f;  // of a quantized number

struct Norm {
    const float* gain;
    const float* bias;
};

// 2^x for x <= 0. The cubic is the minimax polynomial of 2^f on [-1/2, 1/2]: relative error at most 7.5e-5, a fiftieth
// of what bf16 keeps.
inline __m512 exp2_ps(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.055171773f), f, _mm512_set1_ps(0.24261138f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69326097f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.999928f));
    return _mm512_scalef_ps(p, whole);
}

// GELU as x (1/2 + x P(x^2)), where x P(x^2) is fitted to the normal distribution function less 1/2 up to 4 (minimax in
// the result) and constant beyond: within 2e-4 for |x| <= 10, a hundredth of a quantized step of a row that reaches 3.
inline __m512 gelu_ps(__m512 x) {
    const __m512 cut = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(4.f)), _mm512_set1_ps(-4.f));
    const __m512 square = _mm512_mul_ps(cut, cut);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(2.27810606e-8f), square, _mm512_set1_ps(-1.5985812e-6f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(4.79550690e-5f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-8.14010855e-4f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(8.77236668e-3f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-6.45730793e-2f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(3.97883385e-1f));
    return _mm512_mul_ps(x, _mm512_fmadd_ps(cut, p, _mm512_set1_ps(0.5f)));
}

inline __m512i as_bf16(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

inline __m512 low_floats(__m512i bf16) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(bf16)), 16));
}
inline __m512 high_floats(__m512i bf16) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(bf16, 1)), 16));
}

inline void store_quantized(__m512 value, __m512 inverse, int8_t* target) {
    _mm_store_si128((__m128i*)target, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(value, inverse))));
}

// A row's line `block` (of 64 numbers) in a left factor with `blocks` of them.
inline int8_t* line_of(int8_t* tiles, int64_t row, int64_t block, int64_t blocks) {
    return tiles + ((row / TILE_ROWS) * blocks + block) * TILE_BYTES + (row % TILE_ROWS) * LINE;
}

// Quantize `size` floats into a row of a left factor; returns what its integers are to be multiplied with.
inline float quantize_row(const float* from, int64_t size, int8_t* tiles, int64_t row) {
    __m512 largest = _mm512_set1_ps(1e-30f);
    for (int64_t i = 0; i < size; i += 16) largest = _mm512_max_ps(largest, _mm512_abs_ps(_mm512_load_ps(from + i)));
    const float scale = _mm512_reduce_max_ps(largest) / LARGEST;
    const __m512 inverse = _mm512_set1_ps(1 / scale);
    for (int64_t i = 0; i < size; i += 16)
        store_quantized(_mm512_load_ps(from + i), inverse, line_of(tiles, row, i / INNER, size / INNER) + i % INNER);
    return scale;
}

// Normalize `size` floats (biased variance) into `to`, which may be `from`.
inline void normalize_row(const float* from, int64_t size, const Norm& norm, float epsilon, float* to) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < size; i += 16) sum = _mm512_add_ps(sum, _mm512_load_ps(from + i));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / size);
    __m512 squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < size; i += 16) {
        const __m512 d = _mm512_sub_ps(_mm512_load_ps(from + i), mean);
        squares = _mm512_fmadd_ps(d, d, squares);
    }
    const __m512 inverse = _mm512_set1_ps(1 / std::sqrt(_mm512_reduce_add_ps(squares) / size + epsilon));
    for (int64_t i = 0; i < size; i += 16) {
        const __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(from + i), mean), inverse);
        _mm512_store_ps(to + i, _mm512_fmadd_ps(d, _mm512_load_ps(norm.gain + i), _mm512_load_ps(norm.bias + i)));
    }
}

// Transpose 16 rows of 16 doublewords.
inline void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 4) {
        const __m512i a = _mm512_unpacklo_epi32(r[i], r[i + 1]), b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        const __m512i c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]), d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
        t[i] = _mm512_unpacklo_epi64(a, c);
        t[i + 1] = _mm512_unpackhi_epi64(a, c);
        t[i + 2] = _mm512_unpacklo_epi64(b, d);
        t[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    for (int i = 0; i < 4; ++i) {
        const __m512i a = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88),
                      b = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88);
        const __m512i c = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd),
                      d = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
        r[i] = _mm512_shuffle_i32x4(a, b, 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(a, b, 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(c, d, 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }
}

}  // namespace native
