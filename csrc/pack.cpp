// Packing: every column block of sixteen outputs is written by one thread, in pieces that stay in the first cache.
//
// float32 and bfloat16 by integer arithmetic only, so that a subnormal weight keeps its bits whatever the
// floating-point mode. For a quantised format sixteen rows are laid side by side, and a kernel does the rest. What is
// written is looked at on the way: whether every number of it is finite.
#include "pack.h"

#include <atomic>
#include <cstring>
#include <vector>

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

// The exponent of NaN and of infinity, in a float32, a bfloat16 and a float16.
constexpr std::uint32_t kNotFinite = 0x7F800000u;
constexpr std::uint16_t kNotFiniteBfloat16 = 0x7F80u, kNotFiniteFloat16 = 0x7C00u;

// Outputs lane .. of one block, from the source's rows on. Returns whether all that was written is finite.
template <SourceNumber number>
bool pack_block(const Linear& target, std::int64_t block, int lane, int lanes, const PackSource& source,
                std::int64_t source_row) {
  const bool wide = target.number == Number::float32;
  const std::int64_t steps = wide ? target.k : (target.k + 1) / 2;
  char* out = static_cast<char*>(const_cast<void*>(target.weights)) + block * steps * 64;
  bool is_bad = false;
  for (std::int64_t first = 0; first < source.k; first += kPiece) {
    const std::int64_t last = first + kPiece < source.k ? first + kPiece : source.k;
    for (int j = 0; j < lanes; j++) {
      const char* p = source.data + (source_row + j) * source.row_stride + first * source.column_stride;
      for (std::int64_t i = first; i < last; i++, p += source.column_stride) {
        const std::uint32_t bits = float_bits(p, number);
        if (wide) {
          is_bad |= (bits & kNotFinite) == kNotFinite;
          std::memcpy(out + (i * kLanes + lane + j) * 4, &bits, 4);
        } else {
          const std::uint16_t half =
              number == SourceNumber::bfloat16 ? static_cast<std::uint16_t>(bits >> 16) : nearest_bfloat16(bits);
          is_bad |= (half & kNotFiniteBfloat16) == kNotFiniteBfloat16;
          std::memcpy(out + ((i / 2 * kLanes + lane + j) * 2 + i % 2) * 2, &half, 2);
        }
      }
    }
  }
  return !is_bad;
}

// The rows of one block side by side: out (k, 16), from lane `lane` on.
template <SourceNumber number>
void lay_out(const PackSource& source, std::int64_t source_row, int lane, int lanes, float* out) {
  for (std::int64_t first = 0; first < source.k; first += kPiece) {
    const std::int64_t last = first + kPiece < source.k ? first + kPiece : source.k;
    for (int j = 0; j < lanes; j++) {
      const char* p = source.data + (source_row + j) * source.row_stride + first * source.column_stride;
      for (std::int64_t i = first; i < last; i++, p += source.column_stride) {
        const std::uint32_t bits = float_bits(p, number);
        std::memcpy(out + i * kLanes + lane + j, &bits, 4);
      }
    }
  }
}

// What one thread needs to quantise a block.
struct Workshop {
  std::vector<float> inputs;
  std::vector<std::uint8_t> block;
};

// Bytes of one output in a line of a packed block: a scale, or four codes.
int bytes_of_lane(Number number, std::int64_t line) {
  if (number == Number::int8_channel) return 4;
  return line % (number == Number::int8 ? 17 : 9) ? 4 : 2;
}

// Whether the scales of some outputs of a packed block are finite: the kernel leaves no other where an entry was not.
bool has_finite_scales(Number number, std::int64_t lines, int lane, int lanes, const std::uint8_t* block) {
  bool is_bad = false;
  if (number == Number::int8_channel) {
    for (int j = lane; j < lane + lanes; j++) {
      std::uint32_t bits;
      std::memcpy(&bits, block + (lines - 1) * 64 + 4 * j, sizeof bits);
      is_bad |= (bits & kNotFinite) == kNotFinite;
    }
    return !is_bad;
  }
  for (std::int64_t line = 0; line < lines; line += number == Number::int8 ? 17 : 9)
    for (int group = 0; group < 2; group++)
      for (int j = lane; j < lane + lanes; j++) {
        std::uint16_t half;
        std::memcpy(&half, block + line * 64 + 2 * (group * kLanes + j), sizeof half);
        is_bad |= (half & kNotFiniteFloat16) == kNotFiniteFloat16;
      }
  return !is_bad;
}

template <SourceNumber number>
bool quantise_block(const Kernels& kernels, const Linear& target, std::int64_t block, int lane, int lanes,
                    const PackSource& source, std::int64_t source_row, Workshop& shop) {
  const std::int64_t k = target.number == Number::int8_channel ? (target.k + 31) / 32 * 32 : (target.k + 63) / 64 * 64;
  const std::int64_t lines = packed_block_bytes(target.number, target.k) / 64;
  shop.inputs.resize(static_cast<std::size_t>(k * kLanes));  // zeros, and they stay so beyond target.k
  lay_out<number>(source, source_row, lane, lanes, shop.inputs.data());
  auto* out = static_cast<std::uint8_t*>(const_cast<void*>(target.weights)) + block * lines * 64;
  if (lanes == kLanes) {
    kernels.quantise(target.number, shop.inputs.data(), k, out);
    return has_finite_scales(target.number, lines, 0, kLanes, out);
  }
  shop.block.resize(static_cast<std::size_t>(lines * 64));  // other outputs of this block keep what they have
  kernels.quantise(target.number, shop.inputs.data(), k, shop.block.data());
  for (std::int64_t line = 0; line < lines; line++) {
    const int bytes = bytes_of_lane(target.number, line);
    for (std::int64_t half = 0; half < 64; half += bytes * kLanes) {
      const std::int64_t at = line * 64 + half + lane * bytes;
      std::memcpy(out + at, shop.block.data() + at, static_cast<std::size_t>(lanes * bytes));
    }
  }
  return has_finite_scales(target.number, lines, lane, lanes, out);
}

template <SourceNumber number>
bool pack_or_quantise(const Kernels& kernels, const Linear& target, std::int64_t block, int lane, int lanes,
                      const PackSource& source, std::int64_t source_row, Workshop& shop) {
  if (is_quantised(target.number))
    return quantise_block<number>(kernels, target, block, lane, lanes, source, source_row, shop);
  return pack_block<number>(target, block, lane, lanes, source, source_row);
}

}  // namespace

bool Device::pack(const Linear& target, std::int64_t row, const PackSource& source) {
  const Turn turn(*this);
  const std::int64_t first = row / kLanes, blocks = (row + source.rows + kLanes - 1) / kLanes - first;
  std::atomic<bool> is_finite{true};
  split(blocks, 1, source.rows * source.k, [&](std::int64_t begin, std::int64_t end, int) {
    Workshop shop;
    bool is_good = true;
    for (std::int64_t block = first + begin; block < first + end; block++) {
      const std::int64_t from = block * kLanes > row ? block * kLanes : row;
      const std::int64_t beyond = row + source.rows, next = (block + 1) * kLanes;
      const int lane = static_cast<int>(from % kLanes),
                lanes = static_cast<int>((next < beyond ? next : beyond) - from);
      switch (source.number) {
        case SourceNumber::float32:
          is_good &=
              pack_or_quantise<SourceNumber::float32>(kernels_, target, block, lane, lanes, source, from - row, shop);
          break;
        case SourceNumber::float16:
          is_good &=
              pack_or_quantise<SourceNumber::float16>(kernels_, target, block, lane, lanes, source, from - row, shop);
          break;
        case SourceNumber::bfloat16:
          is_good &=
              pack_or_quantise<SourceNumber::bfloat16>(kernels_, target, block, lane, lanes, source, from - row, shop);
          break;
      }
    }
    if (!is_good) is_finite = false;
  });
  return is_finite;
}

}  // namespace openwork
