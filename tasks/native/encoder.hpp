// The encoder: its phases, and the memory that its activations take.
#pragma once

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "attention.hpp"
#include "memory.hpp"
#include "products.hpp"
#include "sharing.hpp"
#include "tiles.hpp"
#include "vectors.hpp"
#include "weights.hpp"

namespace native {

constexpr float LEAST_GELU = 0.17f;  // no value of GELU is below -0.17: a row's largest magnitude needs no others

// At most, of a layer: phases that share out rows, and products.
constexpr int ROW_PHASES = 8, PRODUCTS = 6;

struct Rows {  // of activations: the states, and the same quantized
    float* states;
    int8_t* quantized;
    float* scales;
    int64_t count;

    int64_t tiles() const { return rounded_up(count, TILE_ROWS) / TILE_ROWS; }
};

class Encoder {
public:
    Encoder(const Config& config, const char* weights, const int64_t* offsets)
        : c_(config), w_(weights, offsets, config.layers), counters_(config.threads) {}

    // Token ids, mask and token types (null: all 0) [batch, length] to logits [batch, labels].
    void run(int64_t batch, int64_t length, const int64_t* ids, const int64_t* mask, const int64_t* types,
             float* logits) {
        resize(batch, length);
        for (int64_t sequence = 0; sequence < batch; ++sequence) {
            const int64_t* begin = mask + sequence * length;
            has_padding_[sequence] = length < padded_ || std::count(begin, begin + length, 0) > 0;
        }
#pragma omp parallel num_threads(c_.threads)
        {
            const int thread = omp_get_thread_num();
            Worker worker{shares_, counters_[thread], thread, omp_get_num_threads()};
            if (thread == 0) ran_threads_ = worker.threads;
            configure_tiles();
            embed(worker, ids, mask, types);
#pragma omp barrier
            for (int64_t layer = 0; layer < c_.layers; ++layer)
                encode(worker, w_.layers[layer], c_.pruned && layer == c_.layers - 1);
            classify(worker, logits);
            _tile_release();
        }
    }

    int64_t multiply_adds(int64_t Counter::* kind) const {
        int64_t sum = 0;
        for (const Counter& counter : counters_) sum += counter.*kind;
        return sum;
    }
    int64_t ran_threads() const { return ran_threads_; }

private:
    int64_t width() const { return c_.hidden / c_.heads; }
    Rows all() const { return {states_.get(), quantized_.get(), scales_.get(), batch_ * padded_}; }
    Rows first() const { return {first_states_.get(), first_quantized_.get(), scales_.get(), batch_}; }

    void resize(int64_t batch, int64_t length) {
        batch_ = batch, length_ = length, padded_ = rounded_up(length, PANEL);
        const int64_t rows = batch_ * padded_, h = c_.hidden, alone = rounded_up(batch_, PANEL);
        attention_.resize(batch_, padded_, c_.heads, width(), c_.threads);
        states_.resize(rows * h);
        seen_.resize(rows * h);
        quantized_.resize(rows * h);
        scales_.resize(rows);
        mask_.resize(rows);
        between_.resize(rows * c_.intermediate);
        quantized_between_.resize(rows * c_.intermediate);
        scales_between_.resize(rows);
        largest_.resize(c_.threads * rows * 16);
        inverses_.resize(c_.threads * rows);
        first_states_.resize(alone * h);
        first_quantized_.resize(alone * h);
        features_.resize(alone * h);
        has_padding_.resize(batch_);
        std::fill(counters_.begin(), counters_.end(), Counter());
        const int64_t most = parts(rows, std::max(h, c_.intermediate));
        shares_.restart((c_.layers + 1) * (ROW_PHASES + PRODUCTS * most), c_.threads);
    }

    void embed(Worker& worker, const int64_t* ids, const int64_t* mask, const int64_t* types) {
        const int64_t h = c_.hidden;
        worker.share_out(batch_ * padded_, [&](int64_t row) {
            const int64_t sequence = row / padded_, place = row % padded_;
            const bool inside = place < length_;
            const int64_t token = inside ? sequence * length_ + place : 0;
            mask_.get()[row] = inside && mask[token] ? 0.f : MASKED;
            const float* position = w_.positions + (inside ? position_of(ids + sequence * length_, place) : 0) * h;
            const float* type = w_.types + (types && inside ? types[token] : 0) * h;
            const int8_t* word = w_.words + ids[token] * h;
            const __m512 scale = _mm512_set1_ps(w_.word_scales[ids[token]]);
            float* state = states_.get() + row * h;
            for (int64_t i = 0; i < h; i += 16) {
                const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(word + i));
                const __m512 added = _mm512_add_ps(_mm512_load_ps(position + i), _mm512_load_ps(type + i));
                const __m512 numbers = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
                _mm512_store_ps(state + i, _mm512_fmadd_ps(numbers, scale, added));
            }
            normalize_row(state, h, w_.embedded, c_.epsilon, state);
            scales_.get()[row] = quantize_row(state, h, quantized_.get(), row);
        });
    }

    // As the families count: from 0, or from the padding token's id + 1 on for each token that is none.
    int64_t position_of(const int64_t* ids, int64_t place) const {
        if (c_.padding_id < 0) return place;
        if (ids[place] == c_.padding_id) return c_.padding_id;
        const auto is_token = [&](int64_t id) { return id != c_.padding_id; };
        return c_.padding_id + std::count_if(ids, ids + place + 1, is_token);
    }

    void encode(Worker& worker, const Layer& layer, bool first_alone) {
        const int64_t h = c_.hidden;
        if (first_alone) {
            gather_first(worker);
#pragma omp barrier
            project(worker, layer.qkv, 0, h, first(), padded_);
            project(worker, layer.qkv, h, 2 * h, all(), 1);
        } else {
            project(worker, layer.qkv, 0, 3 * h, all(), 1);
        }
#pragma omp barrier
        attend(worker, first_alone);
#pragma omp barrier
        const Rows rows = first_alone ? first() : all();
        worker.share_out(rows.count, [&](int64_t row) {
            rows.scales[row] = quantize_row(seen_.get() + row * h, h, rows.quantized, row);
        });
#pragma omp barrier
        add_product(worker, layer.out, rows.quantized, rows.scales, h, rows);
#pragma omp barrier
        renormalize(worker, layer.after_attention, rows);
#pragma omp barrier
        widen(worker, layer.up, rows);
#pragma omp barrier
        quantize_between(worker, rows.count);
#pragma omp barrier
        add_product(worker, layer.down, quantized_between_.get(), scales_between_.get(), c_.intermediate, rows);
#pragma omp barrier
        renormalize(worker, layer.after_feed_forward, rows);
#pragma omp barrier
    }

    // The first token's state of every sequence, put together. Its scale stays where its row has it.
    void gather_first(Worker& worker) {
        const int64_t h = c_.hidden;
        worker.share_out(batch_, [&](int64_t sequence) {
            float* state = first_states_.get() + sequence * h;
            std::copy_n(states_.get() + sequence * padded_ * h, h, state);
            quantize_row(state, h, first_quantized_.get(), sequence);
        });
    }

    // Queries, keys and values in bf16, for attention: `columns` of them from `begin` on. Row r of `rows` is row
    // r * `apart` of the batch.
    void project(Worker& worker, const Product& qkv, int64_t begin, int64_t columns, const Rows& rows, int64_t apart) {
        const int64_t h = c_.hidden, per_head = width() / PANEL;
        alignas(LINE) uint16_t staged[TILE_ROWS * PANEL];
        multiply<false>(worker, rows.quantized, rows.tiles(), h, qkv.panels + begin * h, columns / PANEL,
                        [&](int64_t row, int64_t number, const int32_t* sums) {
                            if (row >= rows.count) return;
                            const int64_t panel = begin / PANEL + number, kind = panel / (h / PANEL);
                            const int64_t head = panel % (h / PANEL) / per_head, part = panel % per_head;
                            const int64_t place = row * apart;
                            __m512 low, high;
                            qkv.dequantize(panel, rows.scales[place], sums, low, high);
                            if (kind == 0)
                                attention_.store_query(place, head, part, as_bf16(low, high));
                            else if (kind == 1)
                                attention_.store_key(place, head, part, as_bf16(low, high), staged);
                            else
                                attention_.store_value(place, head, part, as_bf16(low, high), staged);
                        });
    }

    // What every query sees, [rows, hidden]; of the first tokens alone [batch, hidden].
    void attend(Worker& worker, bool first_alone) {
        const int64_t h = c_.hidden, blocks = first_alone ? 1 : padded_ / PANEL;
        worker.share_out(batch_ * c_.heads * blocks, [&](int64_t item) {
            const int64_t block = item % blocks, head = item / blocks % c_.heads, sequence = item / blocks / c_.heads;
            const int64_t row = sequence * padded_ + block * PANEL;
            const float* mask = has_padding_[sequence] ? mask_.get() + sequence * padded_ : nullptr;
            float* target = seen_.get() + (first_alone ? sequence : row) * h + head * width();
            attention_.attend(worker, row, head, first_alone, mask, target, h);
        });
    }

    // Add a product to the states.
    void add_product(Worker& worker, const Product& product, const int8_t* left, const float* scales, int64_t inner,
                     const Rows& rows) {
        const int64_t h = c_.hidden;
        multiply<false>(worker, left, rows.tiles(), inner, product.panels, h / PANEL,
                        [&](int64_t row, int64_t panel, const int32_t* sums) {
                            if (row >= rows.count) return;
                            __m512 low, high;
                            product.dequantize(panel, scales[row], sums, low, high);
                            float* state = rows.states + row * h + panel * PANEL;
                            _mm512_store_ps(state, _mm512_add_ps(low, _mm512_load_ps(state)));
                            _mm512_store_ps(state + 16, _mm512_add_ps(high, _mm512_load_ps(state + 16)));
                        });
    }

    void renormalize(Worker& worker, const Norm& norm, const Rows& rows) {
        const int64_t h = c_.hidden;
        worker.share_out(rows.count, [&](int64_t row) {
            float* state = rows.states + row * h;
            normalize_row(state, h, norm, c_.epsilon, state);
            rows.scales[row] = quantize_row(state, h, rows.quantized, row);
        });
    }

    // GELU of the wide product in bf16, [panels][rows][32], and the largest of every row that this thread has seen.
    void widen(Worker& worker, const Product& up, const Rows& rows) {
        const int64_t padded = rows.tiles() * TILE_ROWS;
        float* largest = largest_.get() + worker.thread * batch_ * padded_ * 16;
        for (int64_t row = 0; row < rows.count; ++row) _mm512_store_ps(largest + row * 16, _mm512_set1_ps(LEAST_GELU));
        multiply<false>(worker, rows.quantized, rows.tiles(), c_.hidden, up.panels, c_.intermediate / PANEL,
                        [&](int64_t row, int64_t panel, const int32_t* sums) {
                            if (row >= rows.count) return;
                            __m512 low, high;
                            up.dequantize(panel, rows.scales[row], sums, low, high);
                            low = gelu_ps(low), high = gelu_ps(high);
                            float* seen = largest + row * 16;
                            _mm512_store_ps(seen, _mm512_max_ps(_mm512_load_ps(seen), _mm512_max_ps(low, high)));
                            _mm512_store_si512(between_.get() + (panel * padded + row) * PANEL, as_bf16(low, high));
                        });
    }

    // Columns are shared out as they were to make them, so that most are still in the core's own cache.
    void quantize_between(Worker& worker, int64_t count) {
        const int64_t padded = rounded_up(count, TILE_ROWS), blocks = c_.intermediate / INNER, all = batch_ * padded_;
        float* inverses = inverses_.get() + worker.thread * all;
        for (int64_t row = 0; row < count; ++row) {
            __m512 largest = _mm512_set1_ps(LEAST_GELU);
            for (int64_t thread = 0; thread < worker.threads; ++thread)
                largest = _mm512_max_ps(largest, _mm512_load_ps(largest_.get() + (thread * all + row) * 16));
            const float most = _mm512_reduce_max_ps(largest);
            inverses[row] = LARGEST / most;
            if (worker.thread == 0) scales_between_.get()[row] = most / LARGEST;
        }
        worker.share_out(blocks, [&](int64_t block) {
            for (int64_t row = 0; row < count; ++row) {
                const __m512 by = _mm512_set1_ps(inverses[row]);
                int8_t* line = line_of(quantized_between_.get(), row, block, blocks);
                for (int half = 0; half < 2; ++half) {
                    const uint16_t* numbers = between_.get() + ((2 * block + half) * padded + row) * PANEL;
                    const __m512i pair = _mm512_load_si512(numbers);
                    store_quantized(low_floats(pair), by, line + half * PANEL);
                    store_quantized(high_floats(pair), by, line + half * PANEL + 16);
                }
            }
        });
    }

    // The head reads the first token of every sequence.
    void classify(Worker& worker, float* logits) {
        const int64_t h = c_.hidden, apart = c_.pruned ? 1 : padded_;
        if (!c_.pruned) {
            gather_first(worker);
#pragma omp barrier
        }
        multiply<false>(worker, first_quantized_.get(), first().tiles(), h, w_.head.panels, h / PANEL,
                        [&](int64_t row, int64_t panel, const int32_t* sums) {
                            if (row >= batch_) return;
                            __m512 low, high;
                            w_.head.dequantize(panel, scales_.get()[row * apart], sums, low, high);
                            float* features = features_.get() + row * h + panel * PANEL;
                            _mm512_store_ps(features, low);
                            _mm512_store_ps(features + 16, high);
                        });
#pragma omp barrier
        worker.share_out(batch_, [&](int64_t sequence) {
            float* features = features_.get() + sequence * h;
            for (int64_t i = 0; i < h; ++i)
                features[i] = c_.tanh_head ? std::tanh(features[i]) : std::max(features[i], 0.f);
            for (int64_t label = 0; label < c_.labels; ++label) {
                const float* weight = w_.classifier + label * h;
                __m512 sum = _mm512_setzero_ps();
                for (int64_t i = 0; i < h; i += 16)
                    sum = _mm512_fmadd_ps(_mm512_load_ps(features + i), _mm512_loadu_ps(weight + i), sum);
                logits[sequence * c_.labels + label] = _mm512_reduce_add_ps(sum) + w_.classifier_bias[label];
            }
        });
    }

    Config c_;
    Weights w_;
    std::vector<Counter> counters_;

    int64_t batch_ = 0, length_ = 0, padded_ = 0, ran_threads_ = 0;
    Attention attention_;
    Shares shares_;
    std::vector<char> has_padding_;
    Buffer<float> states_, seen_, scales_, mask_, scales_between_, largest_, inverses_, first_states_, features_;
    Buffer<int8_t> quantized_, quantized_between_, first_quantized_;
    Buffer<uint16_t> between_;
};

}  // namespace native
