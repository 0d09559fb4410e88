// Device: the operations of a Transformer on this machine, each cut over the threads and handed to the kernels.
//
// Works on raw pointers whose sizes the caller has checked (bindings.cpp), and on one operation at a time: whoever
// calls from a second thread waits. How an operation is cut changes no bit of its result. Scratch memory grows to the
// largest operation seen and is then used again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "float_mode.h"
#include "kernels.h"
#include "pack.h"
#include "pool.h"

namespace openwork {

struct AttendJob;  // of attention.cpp
struct AttendTile;

struct Linear {
  Number number;
  std::int64_t n, k;
  const void* weights;
  const float* bias;  // or null
};

struct Norm {
  bool centered;  // LayerNorm; else RMSNorm
  std::int64_t size;
  float eps;
  const float* weight;
  const float* bias;  // or null
};

struct Attention {
  Linear qkv, out;
  int num_heads, num_kv_heads, head_dim, rotary_dim;
  float scale;
  float softcap;        // 0: none
  std::int32_t window;  // 0: none
  bool has_q_norm, has_k_norm;
  Norm q_norm, k_norm;
};

struct Mlp {
  Linear up, down;
  Activation activation;
  bool gated;
};

// Paged keys and values, all layers; see ops/paged.py.
struct Cache {
  Number number;
  std::int64_t layers, blocks;
  int kv_heads, block_size, head_dim;
  char* keys;
  char* values;

  std::ptrdiff_t key_tile() const;  // bytes of sixteen tokens of one head
  std::ptrdiff_t value_tile() const;
  std::ptrdiff_t key_bytes() const;  // of one head in one block
  std::ptrdiff_t value_bytes() const;
  char* keys_of(std::int64_t layer, std::int64_t block, int head) const;
  char* values_of(std::int64_t layer, std::int64_t block, int head) const;
};

// The rows of a step; sequence s owns rows starts[s] .. starts[s + 1] - 1 and the blocks at table(s).
struct StepRows {
  std::vector<std::int32_t> positions, starts, tables;
  std::int64_t table_width;
  std::vector<std::int32_t> sequence_of;  // (rows,)
  const float* cos;                       // (rows, half) or null
  const float* sin;
  std::int64_t half;

  // Rows whose way is stamped (core/stamp.py): points (stamped, num_points), or null. Layer l has its at 1 + 4 l.
  std::vector<std::int32_t> stamped;
  std::uint32_t* points;
  std::int64_t num_points;

  // The order in which sequences that begin alike stand together; of rows, it says where each of them has its place.
  std::vector<std::int32_t> by_prefix;    // (sequences,) the sequence at index i
  std::vector<std::int32_t> shared;       // (sequences,) splits which it and the one before it read from the same blocks
  std::vector<std::int32_t> first_place;  // (sequences + 1,) of its rows
  std::vector<std::int32_t> row_at, place_of;  // (rows,) row_at[place_of[row]] == row

  std::int64_t count() const { return static_cast<std::int64_t>(positions.size()); }
  int sequences() const { return static_cast<int>(starts.size()) - 1; }
  const std::int32_t* table(int s) const { return tables.data() + s * table_width; }
};

// Memory that is kept from one operation to the next, aligned to cache lines.
class Scratch {
 public:
  template <class T>
  T* take(std::int64_t count) {
    return static_cast<T*>(bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }

 private:
  struct Free {
    void operator()(void* p) const;
  };
  void* bytes(std::size_t size);
  std::unique_ptr<void, Free> memory_;
  std::size_t size_ = 0;
};

enum class Op { project, attend, output, feed_forward };  // of a layer, in the order of a stamp's points
constexpr std::int64_t kOps = 4;

class Device {
 public:
  Device(const Kernels& kernels, int threads) : kernels_(kernels), pool_(threads) {}

  const Kernels& kernels() const { return kernels_; }
  int threads() const { return pool_.threads(); }
  double busy_s() const { return 1e-9 * static_cast<double>(busy_ns_); }  // spent in operations so far

  void embed(const Linear& table, const std::int64_t* ids, std::int64_t rows, float scale, float* out);
  void linear(const float* x, std::int64_t rows, const Linear& w, float* out);
  void logits(const float* x, std::int64_t rows, const Linear& w, float softcap, float* out);
  // The id of each row's highest logit, ties to the lowest, and whether that logit is finite; no row of logits is kept.
  // Into `hashes`, unless it is null, what hash_rows would give for those rows.
  void best(const float* x, std::int64_t rows, const Linear& w, float softcap, std::int64_t* ids, bool* finite,
            std::uint64_t* hashes);
  void norm(const float* x, std::int64_t rows, const Norm& w, float* out);
  void add(float* x, const float* y, std::int64_t size);
  void act(const float* x, std::int64_t size, Activation kind, float* out);
  void rotate(float* x, std::int64_t heads, std::int64_t head_dim, const StepRows& rows);
  void write(const Cache& cache, std::int64_t layer, const float* k, const float* v, const StepRows& rows);
  void attend(const float* q, const Cache& cache, std::int64_t layer, const StepRows& rows, const Attention& w,
              float* out);
  void attention_block(const float* x, const Attention& w, const StepRows& rows, const Cache& cache, std::int64_t layer,
                       float* out);
  void mlp_block(const float* x, std::int64_t rows, const Mlp& w, float* out);
  // x (rows, size) goes through a whole layer, in place: norm, attention, add; norm, feed-forward, add.
  void pre_norm_layer(float* x, const Norm& attention_norm, const Attention& attention, const Norm& mlp_norm,
                      const Mlp& mlp, const StepRows& rows, const Cache& cache, std::int64_t layer);
  void copy_blocks(const Cache& cache, const std::int64_t* sources, const std::int64_t* targets, std::size_t count);

  void logsumexp(const float* logits, std::int64_t rows, std::int64_t size, double* out);
  void argmax(const float* logits, std::int64_t rows, std::int64_t size, std::int64_t* out);
  void is_finite(const float* logits, std::int64_t rows, std::int64_t size, bool* out);
  void top_k(const float* logits, std::int64_t size, std::int64_t k, std::int64_t* out);
  std::int64_t rank(const float* logits, std::int64_t size, std::int64_t token);
  struct Filter {
    double temperature, top_p, min_p;
    std::int64_t top_k;  // at most the size of the row
  };
  std::int64_t choose(const float* logits, std::int64_t size, const Filter& filter, double noise);

  // Writes the source's rows as outputs row .. of the target. Returns whether every number written is finite.
  bool pack(const Linear& target, std::int64_t row, const PackSource& source);

  // The sum modulo 2^64 of a hash of each page of 4096 bytes and of its number; data begins with page first_page, so
  // that the sums of parts add up to the sum of the whole.
  std::uint64_t checksum(const void* data, std::int64_t bytes, std::uint64_t first_page);
  // The same of each row (rows, size), for itself.
  void hash_rows(const float* x, std::int64_t rows, std::int64_t size, std::uint64_t* out);

  std::uint64_t read_all(const void* data, std::size_t bytes);
  float multiply_all(Number number, std::int64_t steps);

 private:
  class Turn;  // one operation: the lock, and the floating-point mode

  template <class F>
  void split(std::int64_t total, std::int64_t unit, std::int64_t work, const F& f);
  void expect_successor(const Linear& w);
  void multiply(const void* prepared, std::ptrdiff_t stride, std::int64_t rows, const Linear& w, float* y);
  const char* prepare(const float* x, std::int64_t rows, const Linear& w);  // in input_
  void prepare_and_multiply(const float* x, std::int64_t rows, const Linear& w, float* y);
  void stamp(const StepRows& rows, std::int64_t layer, Op op, const float* x, std::int64_t size);
  void norm_row(const Norm& w, const float* x, float* out) const;
  const char* prepare_rows(float* x, const float* y, std::int64_t rows, const Norm& norm, const Linear& w);
  void up_and_activate(const char* prepared, std::int64_t rows, const Mlp& w, char* inner);
  void up_in_slices(const char* prepared, std::int64_t rows, const Mlp& w, char* inner);
  const float* attend_projected(float* qkv, const Attention& w, const StepRows& rows, const Cache& cache,
                                std::int64_t layer);
  // q: (kv_heads, rows by prefix, heads of a kv head) prepared heads, `stride` bytes apart.
  void attend_prepared(const char* q, std::ptrdiff_t stride, const Cache& cache, std::int64_t layer,
                       const StepRows& rows, const Attention& w, float* out);
  void attend_whole(const std::vector<AttendTile>& tiles, const AttendJob& job);
  void attend_in_splits(const std::vector<AttendTile>& tiles, const AttendJob& job);
  void candidates(const float* logits, std::int64_t size, std::int64_t k);
  void likely(const float* logits, std::int64_t size, const double* weights, double goal);

  const Kernels& kernels_;
  Pool pool_;
  std::int64_t busy_ns_ = 0;
  std::mutex mutex_;
  Scratch input_, normed_, wide_, inner_, change_, queries_, workers_, totals_, weights_;
  std::vector<std::uint64_t> order_;
  const void* last_ = nullptr;                                                       // weights multiplied last
  std::unordered_map<const void*, std::pair<const void*, std::int64_t>> successors_;  // and what followed them
};

}  // namespace openwork
