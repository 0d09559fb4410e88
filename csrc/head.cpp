// Over the vocabulary: argmax, top-k, rank, and the choice of a token.
//
// One order everywhere: logit descending, then id ascending. Sums run in a fixed order, in float64.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "checksum.h"
#include "device.h"
#include "turn.h"

namespace openwork {
namespace {

// An unsigned number that orders (logit descending, id ascending) when sorted ascending; -0 is 0, NaN comes first.
std::uint64_t order_key(float logit, std::int64_t id) {
  const float value = logit + 0.0f;
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<std::uint64_t>(~ascending) << 32 | static_cast<std::uint32_t>(id);
}

std::int64_t id_of(std::uint64_t key) { return static_cast<std::int64_t>(key & 0xFFFFFFFFu); }

// log x for a normal x > 0: x = 2^n m, and log m from the series of atanh at (m - 1) / (m + 1).
double logarithm(double x) {
  int n;
  double m = std::frexp(x, &n);
  if (m < 0.70710678118654752) {
    m *= 2;
    n--;
  }
  const double s = (m - 1) / (m + 1), square = s * s;
  double sum = 0;
  for (int i = 23; i >= 1; i -= 2) sum = sum * square + 1.0 / i;
  return n * 0.69314718055994531 + 2 * s * sum;
}

// The first place whose running sum, begun at `sum`, exceeds the goal; places without weight are never taken.
template <class Weight>
std::int64_t draw(std::int64_t first, std::int64_t count, double sum, double goal, const Weight& weight) {
  std::int64_t last = first;
  for (std::int64_t i = first; i < count; i++) {
    const double w = weight(i);
    if (w == 0) continue;
    last = i;
    sum += w;
    if (sum > goal) break;
  }
  return last;
}

}  // namespace

void Device::logsumexp(const float* logits, std::int64_t rows, std::int64_t size, double* out) {
  const Turn turn(*this);
  split(rows, 1, rows * size, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; row++) {
      const double high = kernels_.highest(logits + row * size, size);
      out[row] = std::isfinite(high) ? high + logarithm(kernels_.mass(logits + row * size, size, high)) : high;
    }
  });
}

void Device::argmax(const float* logits, std::int64_t rows, std::int64_t size, std::int64_t* out) {
  const Turn turn(*this);
  split(rows, 1, rows * size, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; row++) {
      const float* x = logits + row * size;
      out[row] = kernels_.first_equal(x, size, kernels_.highest(x, size));
    }
  });
}

void Device::is_finite(const float* logits, std::int64_t rows, std::int64_t size, bool* out) {
  const Turn turn(*this);
  split(rows, 1, rows * size, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; row++)
      out[row] = std::isfinite(kernels_.highest(logits + row * size, size));
  });
}

// Columns are cut into pieces whose logits stay in the second-level cache; what is kept of a piece is its highest, and
// what it adds to the row's hash: a piece is half a page of it.
void Device::best(const float* x, std::int64_t rows, const Linear& w, float softcap, std::int64_t* ids, bool* finite,
                  std::uint64_t* hashes) {
  const Turn turn(*this);
  constexpr std::int64_t kBlocks = kHalfPage / kLanes;  // of sixteen columns, in a piece
  constexpr std::int64_t kRows = 32;    // at a time: 64 KB of logits
  const std::int64_t blocks = (w.n + kLanes - 1) / kLanes, pieces = (blocks + kBlocks - 1) / kBlocks;
  const std::ptrdiff_t stride = kernels_.prepared_bytes(w.number, w.k);
  const char* prepared = prepare(x, rows, w);
  struct Found {
    float logit;
    std::int64_t id;
  };
  std::vector<Found> found(static_cast<std::size_t>(pieces * rows));
  std::vector<std::uint64_t> halves(hashes ? static_cast<std::size_t>(pieces * rows) : 0);
  float* memory = wide_.take<float>(kRows * kBlocks * kLanes * pool_.threads());
  split(pieces, 1, rows * w.n * w.k / 4, [&](std::int64_t begin, std::int64_t end, int worker) {
    float* logits = memory + worker * kRows * kBlocks * kLanes;
    for (std::int64_t piece = begin; piece < end; piece++) {
      const std::int64_t first = piece * kBlocks, last = std::min(first + kBlocks, blocks);
      const std::int64_t size = std::min(last * kLanes, w.n) - first * kLanes;
      for (std::int64_t row = 0; row < rows; row += kRows) {
        const std::int64_t count = std::min(kRows, rows - row);
        const Product p{w.number, w.weights, prepared + row * stride, stride, logits - first * kLanes,
                        kBlocks * kLanes, w.bias, w.n, w.k};
        kernels_.product(p, first, last, 0, count);
        for (std::int64_t i = 0; i < count; i++) {
          float* own = logits + i * kBlocks * kLanes;
          if (softcap != 0.0f) kernels_.soft_cap(own, softcap, size);
          const float high = kernels_.highest(own, size);
          const std::int64_t id = first * kLanes + kernels_.first_equal(own, size, high);
          const auto place = static_cast<std::size_t>(piece * rows + row + i);
          found[place] = {high, id};
          if (hashes) halves[place] = half_page_sum(kernels_, own, size, piece % 2);
        }
      }
    }
  });
  for (std::int64_t row = 0; row < rows; row++) {
    Found top = found[static_cast<std::size_t>(row)];
    for (std::int64_t piece = 1; piece < pieces; piece++) {
      const Found next = found[static_cast<std::size_t>(piece * rows + row)];
      if (next.logit > top.logit || (next.logit != next.logit && top.logit == top.logit)) top = next;
    }
    ids[row] = top.id;
    finite[row] = std::isfinite(top.logit);
  }
  if (!hashes) return;
  const std::uint64_t nothing = half_page_sum(kernels_, nullptr, 0, 1);
  for (std::int64_t row = 0; row < rows; row++) {
    hashes[row] = 0;
    for (std::int64_t piece = 0; piece < pieces; piece += 2) {
      const auto place = static_cast<std::size_t>(piece * rows + row);
      const std::uint64_t second = piece + 1 < pieces ? halves[place + static_cast<std::size_t>(rows)] : nothing;
      hashes[row] += page_hash(halves[place] + second, static_cast<std::uint64_t>(piece / 2));
    }
  }
}

// Fills order_ with the keys of the k first ids in the order, sorted. One pass with a bound that rises.
void Device::candidates(const float* logits, std::int64_t size, std::int64_t k) {
  const auto wanted = static_cast<std::size_t>(k);
  order_.clear();
  const auto cut = [&] {
    std::nth_element(order_.begin(), order_.begin() + (k - 1), order_.end());
    order_.resize(wanted);
  };
  float bound = -INFINITY;  // the worst logit that can still be among the first k
  for (std::int64_t id = 0; id < size; id++) {
    if (logits[id] < bound) continue;
    order_.push_back(order_key(logits[id], id));
    if (order_.size() == 2 * wanted + 64) {
      cut();
      bound = logits[id_of(order_.back())];
    }
  }
  if (order_.size() > wanted) cut();
  std::sort(order_.begin(), order_.end());
}

void Device::top_k(const float* logits, std::int64_t size, std::int64_t k, std::int64_t* out) {
  const Turn turn(*this);
  candidates(logits, size, k);
  for (std::size_t i = 0; i < order_.size(); i++) out[i] = id_of(order_[i]);
}

std::int64_t Device::rank(const float* logits, std::int64_t size, std::int64_t token) {
  const Turn turn(*this);
  const float own = logits[token];
  std::int64_t before = 0;
  for (std::int64_t id = 0; id < size; id++) before += logits[id] > own;
  for (std::int64_t id = 0; id < token; id++) before += logits[id] == own;
  return before + 1;
}

// Fills order_ with the keys, sorted, of ids that surely hold `goal` of the mass: those above an edge that a
// histogram of the weights gives, sixteen steps an octave.
void Device::likely(const float* logits, std::int64_t size, const double* weights, double goal) {
  constexpr int kSteps = 1024, kHighest = 0x3FF0;  // the upper sixteen bits of 1.0
  const auto step_of = [](double weight) {
    std::uint64_t bits;
    std::memcpy(&bits, &weight, sizeof bits);
    return std::max(0, kSteps - 1 + static_cast<int>(bits >> 48) - kHighest);
  };
  double mass[kSteps] = {};
  for (std::int64_t id = 0; id < size; id++) mass[step_of(weights[id])] += weights[id];
  int lowest = kSteps - 1;
  for (double sum = mass[lowest]; lowest > 0 && sum < goal * (1 + 1e-9); sum += mass[lowest]) lowest--;
  float edge = INFINITY;
  for (std::int64_t id = 0; id < size; id++)
    if (weights[id] > 0 && step_of(weights[id]) >= lowest) edge = std::min(edge, logits[id]);
  order_.clear();
  for (std::int64_t id = 0; id < size; id++)
    if (weights[id] > 0 && logits[id] >= edge) order_.push_back(order_key(logits[id], id));
  std::sort(order_.begin(), order_.end());
}

std::int64_t Device::choose(const float* logits, std::int64_t size, const Filter& filter, double noise) {
  const Turn turn(*this);
  const float high = kernels_.highest(logits, size);
  if (!std::isfinite(high)) return kernels_.first_equal(logits, size, high);  // no distribution: see is_finite
  const double rate = std::min(1 / filter.temperature, 1e300);
  const std::int64_t runs = (size + kRun - 1) / kRun;
  double* weights = weights_.take<double>(size + runs);
  double* sums = weights + size;
  std::vector<std::int64_t> kept;
  double total;
  if (filter.top_k < size) {
    candidates(logits, size, filter.top_k);
    for (const std::uint64_t key : order_) kept.push_back(id_of(key));
    std::sort(kept.begin(), kept.end());
    for (const std::int64_t id : kept) kernels_.weigh(logits + id, 1, high, rate, filter.min_p, weights + id, sums);
    total = 0;
    for (const std::int64_t id : kept) total += weights[id];
  } else {
    total = kernels_.weigh(logits, size, high, rate, filter.min_p, weights, sums);
    if (filter.top_p >= 1) {  // no order needed: into the run where the goal is passed
      const double goal = noise * total;
      const std::int64_t run = std::upper_bound(sums, sums + runs, goal) - sums - 1;
      return draw(run * kRun, size, sums[run], goal, [&](std::int64_t id) { return weights[id]; });
    }
    likely(logits, size, weights, filter.top_p * total);
  }
  if (filter.top_p < 1) {
    kept.clear();
    double sum = 0;
    for (std::size_t i = 0; i < order_.size() && (i == 0 || sum < filter.top_p * total); i++) {
      kept.push_back(id_of(order_[i]));
      sum += weights[kept.back()];
    }
    std::sort(kept.begin(), kept.end());
    total = 0;
    for (const std::int64_t id : kept) total += weights[id];
  }
  const auto weight = [&](std::int64_t i) { return weights[kept[static_cast<std::size_t>(i)]]; };
  return kept[static_cast<std::size_t>(draw(0, static_cast<std::int64_t>(kept.size()), 0, noise * total, weight))];
}

}  // namespace openwork
