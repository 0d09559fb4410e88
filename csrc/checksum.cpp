// Checksum: whether the bytes of a file are still those that were written.
//
// A page's hash is NH (Black, Halevi, Krawczyk, Krovetz and Rogaway 1999, UMAC): a sum of products of 32-bit words,
// each with a constant added to it (kernels/words.h). Its products are independent of one another, so the memory is the
// limit. The number of the page is mixed in, so that pages in another order give another sum. It finds what disks and
// truncated copies do to a file; it is no defence against somebody who can write that file.
//
// Words are read as the machine has them: a file of weights is never carried to a machine of the other byte order.
#include "checksum.h"

#include <array>
#include <cstring>

#include "turn.h"

namespace openwork {
namespace {

constexpr std::int64_t kPage = 4096;
constexpr int kWords = kPage / sizeof(std::uint32_t);

// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

constexpr std::array<std::uint32_t, kWords> make_keys() {
  std::array<std::uint32_t, kWords> keys{};
  for (int i = 0; i < kWords; i++)
    keys[i] = static_cast<std::uint32_t>(mix((static_cast<std::uint64_t>(i) + 1) * 0x9E3779B97F4A7C15u));
  return keys;
}

constexpr std::array<std::uint32_t, kWords> kKeys = make_keys();

// The last page as if zeros followed.
std::uint64_t pages_sum(const Kernels& kernels, const char* data, std::int64_t bytes, std::uint64_t first_page) {
  std::uint64_t sum = 0;
  for (; bytes >= kPage; bytes -= kPage, data += kPage) sum += page_hash(kernels.words_sum(data, kKeys.data(), kWords), first_page++);
  if (bytes == 0) return sum;
  char last[kPage] = {};
  std::memcpy(last, data, static_cast<std::size_t>(bytes));
  return sum + page_hash(kernels.words_sum(last, kKeys.data(), kWords), first_page);
}

}  // namespace

std::uint64_t half_page_sum(const Kernels& kernels, const float* x, std::int64_t size, int half) {
  const std::uint32_t* keys = kKeys.data() + half * kHalfPage;
  if (size == kHalfPage) return kernels.words_sum(x, keys, kHalfPage);
  float padded[kHalfPage] = {};
  if (size > 0) std::memcpy(padded, x, sizeof(float) * static_cast<std::size_t>(size));
  return kernels.words_sum(padded, keys, kHalfPage);
}

std::uint64_t page_hash(std::uint64_t sum, std::uint64_t number) { return mix(sum ^ mix(number)); }

void Device::hash_rows(const float* x, std::int64_t rows, std::int64_t size, std::uint64_t* out) {
  const Turn turn(*this);
  const auto bytes = static_cast<std::int64_t>(sizeof(float)) * size;
  split(rows, 1, rows * size, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; row++)
      out[row] = pages_sum(kernels_, reinterpret_cast<const char*>(x + row * size), bytes, 0);
  });
}

// Of rows x (rows, size), those that are stamped: half of the hash that hash_rows gives.
void Device::stamp(const StepRows& rows, std::int64_t layer, Op op, const float* x, std::int64_t size) {
  if (!rows.points) return;
  const auto count = static_cast<std::int64_t>(rows.stamped.size());
  const auto bytes = static_cast<std::int64_t>(sizeof(float)) * size;
  std::uint32_t* points = rows.points + 1 + kOps * layer + static_cast<std::int64_t>(op);
  split(count, 1, count * size, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; i++) {
      const float* row = x + rows.stamped[static_cast<std::size_t>(i)] * size;
      const std::uint64_t hash = pages_sum(kernels_, reinterpret_cast<const char*>(row), bytes, 0);
      points[i * rows.num_points] = static_cast<std::uint32_t>(hash);
    }
  });
}

std::uint64_t Device::checksum(const void* data, std::int64_t bytes, std::uint64_t first_page) {
  const Turn turn(*this);
  const int parts = kPartsPerThread * pool_.threads();
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(parts));
  pool_.deal(parts, [&](int number, int) {
    const Share part = share(bytes, number, parts, kPage);
    sums[static_cast<std::size_t>(number)] =
        pages_sum(kernels_, static_cast<const char*>(data) + part.begin, part.end - part.begin,
                  first_page + static_cast<std::uint64_t>(part.begin / kPage));
  });
  std::uint64_t all = 0;
  for (const std::uint64_t one : sums) all += one;
  return all;
}

}  // namespace openwork
