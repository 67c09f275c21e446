// The model's sizes, and where its weights lie.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <vector>

#include "memory.hpp"
#include "vectors.hpp"

namespace native {

// As `amx.py` declares it; sizes in numbers, not bytes.
struct Config {
    int64_t layers, hidden, heads, intermediate, labels;
    int64_t tanh_head;   // the head's activation: tanh, or ReLU
    int64_t pruned;      // whether the last layer is computed for the first token alone
    int64_t padding_id;  // positions count the other tokens, after it; below 0: all of them, from 0
    int64_t threads;
    double epsilon;
};

struct Product {  // of activations with a weight
    const int8_t* panels;
    const float* scales;  // of each column
    const float* bias;

    // 32 sums of a row that was quantized with `scale`, as floats.
    void dequantize(int64_t panel, float scale, const int32_t* sums, __m512& low, __m512& high) const {
        const float *by = scales + panel * PANEL, *add = bias + panel * PANEL;
        const __m512 row = _mm512_set1_ps(scale);
        low = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums)), row);
        high = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums + 16)), row);
        low = _mm512_fmadd_ps(low, _mm512_load_ps(by), _mm512_load_ps(add));
        high = _mm512_fmadd_ps(high, _mm512_load_ps(by + 16), _mm512_load_ps(add + 16));
    }
};

struct Layer {
    Product qkv, out, up, down;
    Norm after_attention, after_feed_forward;
};

// Every array begins at an offset into one block of memory, a multiple of a line; the offsets come in this order.
struct Weights {
    Weights(const char* begin, const int64_t* offsets, int64_t count) {
        const auto next = [&] { return begin + *offsets++; };
        const auto floats = [&] { return reinterpret_cast<const float*>(next()); };
        const auto product = [&] {
            const auto* panels = reinterpret_cast<const int8_t*>(next());
            const float* scales = floats();
            return Product{panels, scales, floats()};
        };
        const auto norm = [&] {
            const float* gain = floats();
            return Norm{gain, floats()};
        };
        words = reinterpret_cast<const int8_t*>(next());
        word_scales = floats();
        positions = floats();
        types = floats();
        embedded = norm();
        for (int64_t number = 0; number < count; ++number) {
            Layer layer;
            layer.qkv = product();
            layer.out = product();
            layer.after_attention = norm();
            layer.up = product();
            layer.down = product();
            layer.after_feed_forward = norm();
            layers.push_back(layer);
        }
        head = product();
        classifier = floats();
        classifier_bias = floats();
    }

    const int8_t* words;  // [vocabulary, hidden], quantized by row
    const float *word_scales, *positions, *types;
    Norm embedded;
    std::vector<Layer> layers;
    Product head;
    const float *classifier, *classifier_bias;  // [labels, hidden] and [labels]
};

}  // namespace native
