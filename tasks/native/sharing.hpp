// Sharing out the work of a call among its threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "memory.hpp"

namespace native {

struct alignas(LINE) Counter {  // multiply-adds of one thread, in whole tiles
    int64_t int8 = 0, bf16 = 0;
};

// What is left of the items of every phase. A thread takes its own from the front, so that it meets the same weights in
// every part of a product, then others' from the back: cores are not equally fast where somebody else uses the other
// half of one.
class Shares {
public:
    void restart(int64_t phases, int64_t threads) {
        most_threads_ = threads;
        if (static_cast<int64_t>(slots_.size()) < phases * threads) slots_ = std::vector<Slot>(phases * threads);
        for (int64_t slot = 0; slot < phases * threads; ++slot)
            slots_[slot].left.store(UNTOUCHED, std::memory_order_relaxed);
    }

    // Take one of `thread`'s items of a phase that has `count` of them for all `threads`; below 0 when none is left.
    int64_t take(int64_t phase, int64_t count, int64_t thread, int64_t threads, bool from_back) {
        std::atomic<uint64_t>& left = slots_[phase * most_threads_ + thread].left;
        uint64_t seen = left.load(std::memory_order_relaxed);
        for (;;) {
            const bool untouched = seen == UNTOUCHED;
            const uint64_t begin = untouched ? count * thread / threads : seen >> 32;
            const uint64_t end = untouched ? count * (thread + 1) / threads : seen & 0xffffffff;
            if (begin >= end) return -1;
            const uint64_t after = from_back ? begin << 32 | (end - 1) : (begin + 1) << 32 | end;
            if (left.compare_exchange_weak(seen, after, std::memory_order_relaxed)) return from_back ? end - 1 : begin;
        }
    }

private:
    static constexpr uint64_t UNTOUCHED = ~uint64_t{0};

    struct alignas(LINE) Slot {
        std::atomic<uint64_t> left{UNTOUCHED};
    };

    std::vector<Slot> slots_;
    int64_t most_threads_ = 1;
};

// One thread in a call, of as many as OpenMP gave it, which may be fewer than were asked for. All threads go through
// the same phases in the same order; barriers stand between those that need each other's results.
struct Worker {
    Shares& shares;
    Counter& counter;
    int64_t thread, threads;
    int64_t phase = 0;

    template <class Work>
    void share_out(int64_t count, const Work& work) {
        for (int64_t turn = 0; turn < threads; ++turn)
            for (int64_t item; (item = shares.take(phase, count, (thread + turn) % threads, threads, turn > 0)) >= 0;)
                work(item);
        ++phase;
    }
};

}  // namespace native
