// Nothing but a product on tiles, to see how fast this machine can multiply.

#include <immintrin.h>
#include <omp.h>

#include <cstdint>
#include <vector>

#include "memory.hpp"
#include "products.hpp"
#include "sharing.hpp"
#include "tiles.hpp"
#include "vectors.hpp"

namespace native {

// [rows, inner] by [inner, columns], from operands that lie as `products.hpp` wants them; results are a byte each, or a
// bf16, as a quantized or a bf16 layer would write them.
class TileProduct {
public:
    TileProduct(int64_t rows, int64_t inner_bytes, int64_t columns, int64_t threads, bool bf16)
        : tiles_(rows / TILE_ROWS),
          inner_bytes_(inner_bytes),
          panels_(columns / PANEL),
          threads_(threads),
          bf16_(bf16) {
        results_.resize(rows * columns * 2);
        counters_.resize(threads);
    }

    void run(const int8_t* left, const int8_t* right) {
        shares_.restart(parts(tiles_ * TILE_ROWS, inner_bytes_), threads_);
#pragma omp parallel num_threads(threads_)
        {
            const int thread = omp_get_thread_num();
            Worker worker{shares_, counters_[thread], thread, omp_get_num_threads()};
            configure_tiles();
            bf16_ ? multiply_as<true>(worker, left, right) : multiply_as<false>(worker, left, right);
            _tile_release();
        }
    }

    // [panels][rows][64] bytes: 32 results, which in int8 fill the first half.
    const int8_t* results() const { return results_.get(); }

private:
    template <bool BF16>
    void multiply_as(Worker& worker, const int8_t* left, const int8_t* right) {
        const auto finish = [&](int64_t row, int64_t panel, const int32_t* sums) {
            int8_t* target = results_.get() + (panel * tiles_ * TILE_ROWS + row) * LINE;
            const __m512i low = _mm512_load_si512(sums), high = _mm512_load_si512(sums + 16);
            if (BF16) {
                _mm512_store_si512(target, as_bf16(_mm512_castsi512_ps(low), _mm512_castsi512_ps(high)));
            } else {
                _mm_store_si128(reinterpret_cast<__m128i*>(target), _mm512_cvtsepi32_epi8(low));
                _mm_store_si128(reinterpret_cast<__m128i*>(target + 16), _mm512_cvtsepi32_epi8(high));
            }
        };
        multiply<BF16>(worker, left, tiles_, inner_bytes_, right, panels_, finish);
    }

    int64_t tiles_, inner_bytes_, panels_, threads_;
    bool bf16_;
    Buffer<int8_t> results_;
    Shares shares_;
    std::vector<Counter> counters_;
};

}  // namespace native

extern "C" {

int product_permission() { return native::request_tiles(); }

// Null where it cannot be made. Rows are a multiple of 16, columns of 32, and a row of the left factor of 64 bytes.
void* product_create(int64_t rows, int64_t inner_bytes, int64_t columns, int64_t threads, int bf16) {
    try {
        return new native::TileProduct(rows, inner_bytes, columns, threads, bf16 != 0);
    } catch (...) {  // nothing may pass a C function
        return nullptr;
    }
}

void product_run(void* product, const int8_t* left, const int8_t* right) {
    static_cast<native::TileProduct*>(product)->run(left, right);
}

const void* product_results(const void* product) { return static_cast<const native::TileProduct*>(product)->results(); }

void product_destroy(void* product) { delete static_cast<native::TileProduct*>(product); }

}  // extern "C"
