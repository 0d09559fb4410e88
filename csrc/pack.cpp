// Packing: every column block of sixteen outputs is written by one thread, in pieces that stay in the first cache.
//
// Integer arithmetic only, so that a subnormal weight keeps its bits whatever the floating-point mode.
#include "pack.h"

#include <cstring>

#include "turn.h"

namespace openwork {
namespace {

constexpr std::int64_t kPiece = 64;  // inputs of sixteen outputs at a time

inline std::uint32_t float_bits(const char* p, SourceNumber number) {
  if (number == SourceNumber::float32) {
    std::uint32_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return bits;
  }
  std::uint16_t half;
  std::memcpy(&half, p, sizeof half);
  if (number == SourceNumber::bfloat16) return static_cast<std::uint32_t>(half) << 16;
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  std::uint32_t exponent = (half >> 10) & 0x1Fu, mantissa = half & 0x3FFu;
  if (exponent == 0x1Fu) return sign | 0x7F800000u | mantissa << 13;
  if (exponent == 0) {  // a subnormal float16 is a normal float32
    if (mantissa == 0) return sign;
    exponent = 1;
    while (!(mantissa & 0x400u)) {
      mantissa <<= 1;
      exponent--;
    }
    mantissa &= 0x3FFu;
  }
  return sign | (exponent + 112u) << 23 | mantissa << 13;
}

inline std::uint16_t nearest_bfloat16(std::uint32_t bits) {
  const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  return static_cast<std::uint16_t>((nan ? bits | 0x400000u : bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

// Outputs lane .. of one block, from the source's rows on.
template <SourceNumber number>
void pack_block(const Linear& target, std::int64_t block, int lane, int lanes, const PackSource& source,
                std::int64_t source_row) {
  const bool wide = target.number == Number::float32;
  const std::int64_t steps = wide ? target.k : (target.k + 1) / 2;
  char* out = static_cast<char*>(const_cast<void*>(target.weights)) + block * steps * 64;
  for (std::int64_t first = 0; first < source.k; first += kPiece) {
    const std::int64_t last = first + kPiece < source.k ? first + kPiece : source.k;
    for (int j = 0; j < lanes; j++) {
      const char* p = source.data + (source_row + j) * source.row_stride + first * source.column_stride;
      for (std::int64_t i = first; i < last; i++, p += source.column_stride) {
        const std::uint32_t bits = float_bits(p, number);
        if (wide) {
          std::memcpy(out + (i * kLanes + lane + j) * 4, &bits, 4);
        } else {
          const std::uint16_t half = nearest_bfloat16(bits);
          std::memcpy(out + ((i / 2 * kLanes + lane + j) * 2 + i % 2) * 2, &half, 2);
        }
      }
    }
  }
}

}  // namespace

void Device::pack(const Linear& target, std::int64_t row, const PackSource& source) {
  const Turn turn(*this);
  const std::int64_t first = row / kLanes, blocks = (row + source.rows + kLanes - 1) / kLanes - first;
  split(blocks, 1, source.rows * source.k, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t block = first + begin; block < first + end; block++) {
      const std::int64_t from = block * kLanes > row ? block * kLanes : row;
      const std::int64_t beyond = row + source.rows, next = (block + 1) * kLanes;
      const int lane = static_cast<int>(from % kLanes),
                lanes = static_cast<int>((next < beyond ? next : beyond) - from);
      switch (source.number) {
        case SourceNumber::float32:
          pack_block<SourceNumber::float32>(target, block, lane, lanes, source, from - row);
          break;
        case SourceNumber::float16:
          pack_block<SourceNumber::float16>(target, block, lane, lanes, source, from - row);
          break;
        case SourceNumber::bfloat16:
          pack_block<SourceNumber::bfloat16>(target, block, lane, lanes, source, from - row);
          break;
      }
    }
  });
}

}  // namespace openwork
