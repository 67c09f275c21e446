// The use of AMX's tiles: permission, and their shape.
#pragma once

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "memory.hpp"

namespace native {

// Ask the kernel to let this process use tiles; 0, or why not (arch_prctl, Linux 5.16 and newer).
inline int request_tiles() {
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 ? 0 : errno;
}

// The compilers' intrinsics do not say what memory tiles are loaded from: without this, stores could move behind them.
inline void finish_stores() { asm volatile("" ::: "memory"); }

// All eight tiles have 16 rows of 64 bytes, in this thread, until it releases them.
inline void configure_tiles() {
    struct alignas(LINE) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
    for (int tile = 0; tile < 8; ++tile) {
        config.bytes[tile] = LINE;
        config.rows[tile] = TILE_ROWS;
    }
    finish_stores();
    _tile_loadconfig(&config);
}

}  // namespace native
