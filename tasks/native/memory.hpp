// Sizes of tiles and lines, and memory aligned for them.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

namespace native {

constexpr int TILE_ROWS = 16;
constexpr int TILE_BYTES = 1024;
constexpr int TILE_NUMBERS = TILE_BYTES / 2;  // of bf16
constexpr int PANEL = 32;                     // columns of a panel, and rows of a block
constexpr int INNER = 64;                     // inner size of an int8 tile
constexpr int INNER_BF16 = 32;                // and of a bf16 one
constexpr int LINE = 64;                      // bytes of a cache line
constexpr size_t HUGE_PAGE = 2 << 20;

inline int64_t rounded_up(int64_t size, int64_t to) { return (size + to - 1) / to * to; }

// Zeroed numbers on huge pages, where the system has some. Grows, and then forgets what it held.
template <class T>
class Buffer {
public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { release(); }

    void resize(size_t count) {
        if (count <= count_) return;
        release();
        // Huge pages begin at their multiples; a small buffer anywhere would miss them all.
        mapped_bytes_ = rounded_up(count * sizeof(T), HUGE_PAGE) + HUGE_PAGE;
        mapped_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped_ == MAP_FAILED) throw std::bad_alloc();
        madvise(mapped_, mapped_bytes_, MADV_HUGEPAGE);
        data_ = reinterpret_cast<T*>(rounded_up(reinterpret_cast<intptr_t>(mapped_), HUGE_PAGE));
        count_ = count;
    }

    T* get() const { return data_; }

private:
    void release() {
        if (mapped_ != MAP_FAILED) munmap(mapped_, mapped_bytes_);
        mapped_ = MAP_FAILED;
        count_ = 0;
    }

    void* mapped_ = MAP_FAILED;
    T* data_ = nullptr;
    size_t count_ = 0, mapped_bytes_ = 0;
};

}  // namespace native
