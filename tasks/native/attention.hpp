// Attention in bf16 on tiles: queries by keys, softmax, weights by values.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "memory.hpp"
#include "sharing.hpp"
#include "tiles.hpp"
#include "vectors.hpp"

namespace native {

constexpr float MASKED = -1e30f;  // added to the scores of keys that are padding

class Attention {
public:
    // Of sequences of `padded` rows each, a multiple of 32; heads are `width` wide, another one.
    void resize(int64_t batch, int64_t padded, int64_t heads, int64_t width, int64_t threads) {
        padded_ = padded, heads_ = heads, width_ = width;
        const int64_t numbers = batch * padded * heads * width;
        queries_.resize(numbers);
        keys_.resize(numbers);
        values_.resize(numbers);
        scores_.resize(threads * PANEL * stride());
        weights_.resize(threads * PANEL * padded);
    }

    // 32 columns, the `part`-th of a head, of one row of queries, keys or values. Rows of a tile come one after
    // another; `staged` keeps those that have come.
    void store_query(int64_t row, int64_t head, int64_t part, __m512i numbers) {
        const int64_t place = row % padded_;
        uint16_t* tile = queries_.get() + head_offset(row, head) + (place / TILE_ROWS * parts() + part) * TILE_NUMBERS;
        _mm512_store_si512(tile + place % TILE_ROWS * INNER_BF16, numbers);
    }

    void store_key(int64_t row, int64_t head, int64_t part, __m512i numbers, uint16_t* staged) {
        const int64_t place = row % padded_;
        _mm512_store_si512(staged + place % TILE_ROWS * PANEL, numbers);
        if (place % TILE_ROWS != TILE_ROWS - 1) return;
        __m512i tile[TILE_ROWS];
        for (int r = 0; r < TILE_ROWS; ++r) tile[r] = _mm512_load_si512(staged + r * PANEL);
        transpose(tile);
        uint16_t* target = keys_.get() + head_offset(row, head) + (place / TILE_ROWS * parts() + part) * TILE_NUMBERS;
        for (int r = 0; r < TILE_ROWS; ++r) _mm512_store_si512(target + r * INNER_BF16, tile[r]);
    }

    void store_value(int64_t row, int64_t head, int64_t part, __m512i numbers, uint16_t* staged) {
        const int64_t place = row % padded_, columns = width_ / 16;
        if (place % 2 == 0) {
            _mm512_store_si512(staged, numbers);
            return;
        }
        const __m512i before = _mm512_load_si512(staged);
        uint16_t* tile = values_.get() + head_offset(row, head);
        tile += (place / INNER_BF16 * columns + 2 * part) * TILE_NUMBERS + place % INNER_BF16 / 2 * 32;
        _mm512_store_si512(tile, _mm512_permutex2var_epi16(before, pairs(0), numbers));
        _mm512_store_si512(tile + TILE_NUMBERS, _mm512_permutex2var_epi16(before, pairs(16), numbers));
    }

    // 32 queries of a head, or the first alone, which are rows from `row` on; `mask` is to be added to the scores of
    // each key, null where all count. What they see goes to `target`, rows `stride` floats apart.
    void attend(Worker& worker, int64_t row, int64_t head, bool first_alone, const float* mask, float* target,
                int64_t target_stride) {
        const int64_t tiles = first_alone ? 1 : 2, rows = first_alone ? 1 : PANEL, offset = head_offset(row, head);
        float* scores = scores_.get() + worker.thread * PANEL * stride();
        uint16_t* weights = weights_.get() + worker.thread * PANEL * padded_;
        score(queries_.get() + offset + row % padded_ * width_, keys_.get() + offset, tiles, scores);
        float inverses[PANEL];
        for (int64_t r = 0; r < rows; ++r) {
            uint16_t* line = weights + r / TILE_ROWS * padded_ * TILE_ROWS + r % TILE_ROWS * INNER_BF16;
            inverses[r] = 1 / (mask ? exponentials<true>(scores + r * stride(), mask, line)
                                    : exponentials<false>(scores + r * stride(), mask, line));
        }
        weigh(weights, values_.get() + offset, tiles, rows, inverses, target, target_stride);
        worker.counter.bf16 += 2 * tiles * TILE_ROWS * padded_ * width_;
    }

private:
    // Layouts, of every head of every sequence: queries are a left factor [rows / 16][width / 32][16][32]; keys a right
    // one along the width, [keys / 16][width / 32][16 pairs][16][2]; values along the keys, [keys / 32][width / 16][16
    // pairs][16][2].
    int64_t head_offset(int64_t row, int64_t head) const { return (row / padded_ * heads_ + head) * padded_ * width_; }
    int64_t parts() const { return width_ / INNER_BF16; }

    // A row of scores is a line longer than its keys: powers of two would share the same places in the cache.
    int64_t stride() const { return padded_ + 16; }

    // Which of two rows' numbers, from `first` on, stand in turn.
    static __m512i pairs(int first) {
        const __m512i lanes = _mm512_add_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                               _mm512_set1_epi32(first));
        return _mm512_or_si512(lanes, _mm512_slli_epi32(_mm512_add_epi32(lanes, _mm512_set1_epi32(32)), 16));
    }

    void score(const uint16_t* queries, const uint16_t* keys, int64_t tiles, float* scores) const {
        finish_stores();
        for (int64_t key = 0; key < padded_; key += PANEL) {
            const uint16_t* right = keys + key * width_;
            multiply(queries, right, right + parts() * TILE_NUMBERS, parts(), TILE_NUMBERS, tiles, scores + key,
                     stride());
        }
    }

    void weigh(const uint16_t* weights, const uint16_t* values, int64_t tiles, int64_t rows, const float* inverses,
               float* target, int64_t target_stride) const {
        alignas(LINE) float sums[PANEL * PANEL];
        const int64_t columns = width_ / 16;
        finish_stores();
        for (int64_t column = 0; column < columns; column += 2) {
            const uint16_t* right = values + column * TILE_NUMBERS;
            multiply(weights, right, right + TILE_NUMBERS, padded_ / INNER_BF16, columns * TILE_NUMBERS, tiles, sums,
                     PANEL);
            for (int64_t r = 0; r < rows; ++r) {
                const __m512 scale = _mm512_set1_ps(inverses[r]);
                float* seen = target + r * target_stride + column * 16;
                _mm512_store_ps(seen, _mm512_mul_ps(_mm512_load_ps(sums + r * PANEL), scale));
                _mm512_store_ps(seen + 16, _mm512_mul_ps(_mm512_load_ps(sums + r * PANEL + 16), scale));
            }
        }
    }

    // One or two tiles of rows by two of columns, over `inner` tiles; a right factor's are `step` numbers apart.
    static void multiply(const uint16_t* left, const uint16_t* first, const uint16_t* second, int64_t inner,
                         int64_t step, int64_t tiles, float* sums, int64_t stride) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t block = 0; block < inner; ++block) {
            _tile_loadd(4, left + block * TILE_NUMBERS, LINE);
            _tile_loadd(6, first + block * step, LINE);
            _tile_loadd(7, second + block * step, LINE);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            if (tiles == 2) {
                _tile_loadd(5, left + (inner + block) * TILE_NUMBERS, LINE);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        _tile_stored(0, sums, stride * 4);
        _tile_stored(1, sums + 16, stride * 4);
        if (tiles == 2) {
            _tile_stored(2, sums + 16 * stride, stride * 4);
            _tile_stored(3, sums + 16 * stride + 16, stride * 4);
        }
    }

    // 2^(score - the row's largest), for the scores hold the logarithm's base already; returns their sum. `line` is the
    // row's first in a left factor [rows / 16][keys / 32][16][32].
    template <bool PADDED>
    float exponentials(const float* scores, const float* mask, uint16_t* line) const {
        const auto score = [&](int64_t key) {
            const __m512 found = _mm512_load_ps(scores + key);
            return PADDED ? _mm512_add_ps(found, _mm512_load_ps(mask + key)) : found;
        };
        __m512 low_most = _mm512_set1_ps(MASKED), high_most = low_most;
        for (int64_t key = 0; key < padded_; key += PANEL) {
            low_most = _mm512_max_ps(low_most, score(key));
            high_most = _mm512_max_ps(high_most, score(key + 16));
        }
        const __m512 most = _mm512_set1_ps(_mm512_reduce_max_ps(_mm512_max_ps(low_most, high_most)));
        __m512 sum = _mm512_setzero_ps();
        for (int64_t key = 0; key < padded_; key += PANEL, line += TILE_NUMBERS) {
            const __m512 low = exp2_ps(_mm512_sub_ps(score(key), most));
            const __m512 high = exp2_ps(_mm512_sub_ps(score(key + 16), most));
            sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
            _mm512_store_si512(line, as_bf16(low, high));
        }
        return _mm512_reduce_add_ps(sum);
    }

    int64_t padded_ = 0, heads_ = 0, width_ = 0;
    Buffer<uint16_t> queries_, keys_, values_, weights_;
    Buffer<float> scores_;
};

}  // namespace native
