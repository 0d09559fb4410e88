// What of the checksum is used beside checksum.cpp: the hash of a row of logits, half a page at a time.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace openwork {

constexpr std::int64_t kHalfPage = 512;  // numbers of four bytes

// What half 0 or 1 of a page adds to the sum that the page's hash is made of; zeros follow the `size` numbers.
std::uint64_t half_page_sum(const Kernels& kernels, const float* x, std::int64_t size, int half);

// The page's hash, by the sum of its halves; those of all pages are added.
std::uint64_t page_hash(std::uint64_t sum, std::uint64_t number);

}  // namespace openwork
