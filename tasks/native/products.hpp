// Products of activations with weights on tiles, in int8 or bf16.
//
// Left factors are stored as tiles: [rows / 16][inner / 64][16][64] bytes, where 64 consecutive numbers of a row are
// one cache line. Right factors are stored as panels of 32 columns, two tiles of 16 for every 64 of the inner size:
// [columns / 32][inner / 64][2][16][16][4] bytes, four consecutive inner indices together, as TDPBSSD wants them. In
// bf16 a line has 32 numbers, and two are together. Inner sizes are in bytes, for it is the same work then.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "memory.hpp"
#include "sharing.hpp"
#include "tiles.hpp"

namespace native {

// Of a left factor, what stays in a core's own cache (2 MB on every CPU with AMX) while panels pass through it.
constexpr int64_t KEPT_BYTES = 400 << 10;

// Blocks of left rows that a product takes at once, and how many parts that makes of all.
inline int64_t steps_at_once(int64_t inner_bytes) { return std::max<int64_t>(1, KEPT_BYTES / (PANEL * inner_bytes)); }
inline int64_t parts(int64_t rows, int64_t inner_bytes) {
    return rounded_up(rows, PANEL) / PANEL / steps_at_once(inner_bytes) + 1;
}

// One tile of sums, of registers of these numbers.
#define MULTIPLY_TILES(sums, left, right)  \
    if constexpr (BF16) {                  \
        _tile_dpbf16ps(sums, left, right); \
    } else {                               \
        _tile_dpbssd(sums, left, right);   \
    }

// A block's sums [rows][32] that wait to be finished, row by row.
struct Block {
    int64_t row = 0, panel = 0;
    int rows = 0, done = 0;
    int32_t* sums = nullptr;
};

template <class Finish>
inline void finish_rows(Block& block, int count, const Finish& finish) {
    for (const int last = std::min(block.done + count, block.rows); block.done < last; ++block.done)
        finish(block.row + block.done, block.panel, block.sums + block.done * PANEL);
}

// One block of 32 (or, with `ROWS` 16, of 16) rows by a panel of 32 columns, into `sums`. The block before is finished
// meanwhile: tiles and vectors are multiplied by different units, but no processor looks far enough ahead to see that.
template <bool BF16, int ROWS, class Finish>
inline void multiply_block(const int8_t* left, int64_t blocks, const int8_t* panel, const int8_t* fetched,
                           int64_t lines, int32_t* sums, Block& before, const Finish& finish) {
    const int rows_a_step = static_cast<int>((before.rows + blocks - 1) / blocks);
    const int8_t* below = left + blocks * TILE_BYTES;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t block = 0; block < blocks; ++block) {
        _tile_loadd(4, left + block * TILE_BYTES, LINE);
        if (ROWS == PANEL) _tile_loadd(5, below + block * TILE_BYTES, LINE);
        _tile_loadd(6, panel + block * 2 * TILE_BYTES, LINE);
        _tile_loadd(7, panel + block * 2 * TILE_BYTES + TILE_BYTES, LINE);
        // Where somebody else uses the other half of the core, loading tiles and multiplying them hardly overlap: with
        // the lines at hand, a product takes 15 % less there (4 % more where the core is ours).
        for (int line = 0; line < TILE_ROWS; ++line) {
            _mm_prefetch(left + (block + 2) * TILE_BYTES + line * LINE, _MM_HINT_T0);
            if (ROWS == PANEL) _mm_prefetch(below + (block + 2) * TILE_BYTES + line * LINE, _MM_HINT_T0);
        }
        MULTIPLY_TILES(0, 4, 6)
        MULTIPLY_TILES(1, 4, 7)
        if (ROWS == PANEL) {
            MULTIPLY_TILES(2, 5, 6)
            MULTIPLY_TILES(3, 5, 7)
        }
        for (int64_t line = 0; line < lines; ++line) _mm_prefetch(fetched + (block * lines + line) * LINE, _MM_HINT_T1);
        finish_rows(before, rows_a_step, finish);
    }
    finish_rows(before, PANEL, finish);
    _tile_stored(0, sums, PANEL * 4);
    _tile_stored(1, sums + 16, PANEL * 4);
    if (ROWS == PANEL) {
        _tile_stored(2, sums + 16 * PANEL, PANEL * 4);
        _tile_stored(3, sums + 16 * PANEL + 16, PANEL * 4);
    }
}

// Multiply `tiles` tiles of rows with `count` panels; hand every row of 32 sums to `finish(row, panel, sums)`.
template <bool BF16, class Finish>
void multiply(Worker& worker, const int8_t* left, int64_t tiles, int64_t inner_bytes, const int8_t* panels,
              int64_t count, const Finish& finish) {
    alignas(LINE) int32_t sums[2][PANEL * PANEL];
    const int64_t blocks = inner_bytes / LINE, panel_bytes = blocks * 2 * TILE_BYTES, steps = (tiles + 1) / 2;
    const int64_t at_once = steps_at_once(inner_bytes);
    Block before;
    int current = 0;
    finish_stores();
    for (int64_t first = 0; first < steps; first += at_once) {
        const int64_t last = std::min(first + at_once, steps);
        // The first time, the next panel comes from wherever it is, spread over the steps of this one.
        const int64_t lines = first == 0 ? (2 * TILE_ROWS + last - 1) / last : 0;
        worker.share_out(count, [&](int64_t panel) {
            const int8_t* right = panels + panel * panel_bytes;
            for (int64_t step = first; step < last; ++step) {
                const bool ahead = panel + 1 < count && step * blocks * lines * LINE < panel_bytes;
                const int8_t* fetched = right + panel_bytes + step * blocks * lines * LINE;
                const int8_t* rows = left + step * 2 * blocks * TILE_BYTES;
                const bool whole = 2 * step + 1 < tiles;
                const auto& block =
                    whole ? multiply_block<BF16, PANEL, Finish> : multiply_block<BF16, TILE_ROWS, Finish>;
                block(rows, blocks, right, fetched, ahead ? lines : 0, sums[current], before, finish);
                before = {step * PANEL, panel, whole ? PANEL : TILE_ROWS, 0, sums[current]};
                current = 1 - current;
                const int64_t made = PANEL * (whole ? PANEL : TILE_ROWS) * inner_bytes;
                if (BF16)
                    worker.counter.bf16 += made / 2;
                else
                    worker.counter.int8 += made;
            }
        });
    }
    finish_rows(before, PANEL, finish);
}

}  // namespace native
