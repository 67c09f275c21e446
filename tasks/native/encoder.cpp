// A BERT-like encoder with a classification head, for x86 CPUs with AMX: int8 products with weights, bf16 attention.
//
// Activations are quantized row by row in every call (symmetric, by the largest magnitude of the row), weights column
// by column ahead of time. All threads work through the phases of a layer together, with a barrier after each: products
// share out their columns, so that every thread reads a part of the weights once; the rest shares out rows.

#include <cstdint>

#include "encoder.hpp"
#include "tiles.hpp"

extern "C" {

// 0, or what the kernel answered when this process asked for the use of tiles.
int encoder_permission() { return native::request_tiles(); }

// Null where it cannot be made. The weights stay the caller's, and must outlive the encoder.
void* encoder_create(const native::Config* config, const char* weights, const int64_t* offsets) {
    try {
        return new native::Encoder(*config, weights, offsets);
    } catch (...) {  // nothing may pass a C function
        return nullptr;
    }
}

// 0, or 1 where there is no memory left.
int encoder_run(void* encoder, int64_t batch, int64_t length, const int64_t* ids, const int64_t* mask,
                const int64_t* types, float* logits) {
    try {
        static_cast<native::Encoder*>(encoder)->run(batch, length, ids, mask, types, logits);
        return 0;
    } catch (...) {
        return 1;
    }
}

// What the last run did: multiply-adds in int8 and in bf16, in whole tiles, and threads.
void encoder_account(const void* encoder, int64_t* account) {
    const auto* ran = static_cast<const native::Encoder*>(encoder);
    account[0] = ran->multiply_adds(&native::Counter::int8);
    account[1] = ran->multiply_adds(&native::Counter::bf16);
    account[2] = ran->ran_threads();
}

void encoder_destroy(void* encoder) { delete static_cast<native::Encoder*>(encoder); }

}  // extern "C"
