// What a set of kernels is: one table of functions, the same for every instruction set.
//
// Kernels take raw pointers and sizes, work on one thread, allocate nothing and know nothing of Python. Whoever calls
// them splits the work; any split gives the same bits, because every output element is a chain of its own (or, where
// a row is reduced, a row is never split). Only plain types may stand here: this header is compiled with different
// instruction sets in different units, and anything with a linker name would be shared between them.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace openwork {

enum class Number : int { float32, bfloat16, int8, int8_channel, int4 };
enum class Activation : int { silu, gelu, gelu_tanh, relu };

constexpr int kLanes = 16;

// Static, so that each unit keeps its own: see above.
static constexpr bool is_quantised(Number number) { return number != Number::float32 && number != Number::bfloat16; }

// Bytes of a packed column block of sixteen outputs; see ops/packed.py.
static constexpr int64_t packed_block_bytes(Number number, int64_t k) {
  switch (number) {
    case Number::float32:
      return k * 64;
    case Number::bfloat16:
      return (k + 1) / 2 * 64;
    case Number::int8:
      return (k + 63) / 64 * 17 * 64;
    case Number::int4:
      return (k + 63) / 64 * 9 * 64;
    case Number::int8_channel:
      return ((k + 31) / 32 * 8 + 1) * 64;
  }
  return 0;
}

constexpr int kSplit = 256;  // keys of one attention split: cut at absolute positions, merged in index order
constexpr int kSplitTiles = kSplit / kLanes;
constexpr int kRun = 256;        // weights between two notes of their running sum
constexpr int kMaxQueries = 48;  // queries of one kv head that share its key and value reads

// y (rows, n) = x (rows, k) * W^T + bias, for columns of some blocks of 16 and some rows.
struct Product {
  Number number;
  const void* weights;  // packed, see ops/packed.py
  const void* x;        // prepared rows (Kernels::prepare), x_stride bytes apart
  ptrdiff_t x_stride;
  float* y;
  ptrdiff_t y_stride;  // floats
  const float* bias;   // (n,) or null
  int64_t n, k;
};

// One layer's keys and values of one kv head, as one sequence sees them.
struct KeysValues {
  Number number;
  const char* keys;  // of this layer and head in block 0
  const char* values;
  ptrdiff_t key_block_stride;  // bytes from one block to the next
  ptrdiff_t value_block_stride;
  ptrdiff_t key_tile, value_tile;  // bytes of sixteen tokens
  const int32_t* table;  // block of position p: table[p / block_size]
  int block_size;
  int head_dim;
  float scale;
  float softcap;  // 0: none
};

// Queries that share a kv head; query i sees keys first[i] .. last[i], both ascending in i.
struct Queries {
  const char* q;       // prepared (Kernels::prepare_query)
  ptrdiff_t q_stride;  // bytes
  int count;
  int32_t first[kMaxQueries];
  int32_t last[kMaxQueries];
};

// Keys that will be read after those at hand: positions first .. last of one split. No kv: none.
struct Ahead {
  const KeysValues* kv;
  int64_t first, last;
};

// What one split (or several, merged) gives for each query: max, sum, weighted values.
struct Mixture {
  float* high;   // (queries,)
  float* mass;   // (queries,)
  float* mixed;  // (queries, head_dim rounded up to 16)
};

struct Kernels {
  const char* isa;
  const char* contract_id;

  // x (k,) -> the form in which products of this number type read a row; prepared_bytes(k) long, padding zero.
  // Entries first .. last - 1 of it; first is a multiple of 64, last too or the end of the row.
  ptrdiff_t (*prepared_bytes)(Number number, int64_t k);
  void (*prepare)(Number number, const float* x, int64_t first, int64_t last, void* out);
  // inputs (k, 16), k padded with zeros to whole units -> one packed column block of a quantised format.
  void (*quantise)(Number number, const float* inputs, int64_t k, uint8_t* out);
  void (*product)(const Product& p, int64_t first_block, int64_t last_block, int64_t first_row, int64_t last_row);

  void (*norm_rms)(const float* x, const float* weight, const float* bias, float eps, int64_t size, float* out);
  void (*norm_layer)(const float* x, const float* weight, const float* bias, float eps, int64_t size, float* out);
  void (*add)(float* x, const float* y, int64_t size);
  void (*scale)(float* x, float factor, int64_t size);
  void (*soft_cap)(float* x, float cap, int64_t size);
  // out = act(gate) * up; up may be null.
  void (*activate)(Activation kind, const float* gate, const float* up, int64_t size, float* out);
  // In place; entry i turns with i + half.
  void (*rotate)(float* x, const float* cos, const float* sin, int64_t half);
  void (*embed)(Number number, const void* table, int64_t k, int64_t id, float scale, float* out);
  // One token's entries of one head into its slot of a key tile and of a value tile.
  void (*write_key)(Number number, const float* k, int head_dim, void* tile, int lane);
  void (*write_value)(Number number, const float* v, int head_dim, void* tile, int lane);

  // One head of a query -> the form in which keys of this number type meet it; query_bytes(head_dim) long.
  ptrdiff_t (*query_bytes)(Number number, int head_dim);
  void (*prepare_query)(Number number, const float* q, int head_dim, void* out);
  // Keys of split `split` for queries begin .. end - 1, each of which has a key in it. scratch: scratch_bytes long, at
  // a cache line. `next`, if any, is read next, and is fetched from memory meanwhile.
  ptrdiff_t (*scratch_bytes)(Number number, int head_dim);
  void (*attend)(const KeysValues& kv, const Queries& queries, int begin, int end, int64_t split, const Ahead& next,
                 void* scratch, const Mixture& out);
  // total = total and then part, in this order.
  void (*merge)(const Mixture& total, const Mixture& part, int query, int padded_dim);
  void (*finish)(const Mixture& total, int query, int head_dim, float* out);

  float (*highest)(const float* x, int64_t size);  // NaN if there is one
  int64_t (*first_equal)(const float* x, int64_t size, float value);
  // sum of exp(x - high) in float64, sixteen strided sums and a tree.
  double (*mass)(const float* x, int64_t size, double high);
  // out = exp((x - high) * rate), zero where less than `least`. Returns their running sum, one after the other, and
  // leaves in sums[i] what it was before entry kRun * i.
  double (*weigh)(const float* x, int64_t size, double high, double rate, double least, double* out, double* sums);

  // Of count words, a multiple of 32: the sum of neighbours' products, a key added to each (checksum.cpp).
  uint64_t (*words_sum)(const void* data, const uint32_t* keys, int64_t count);

  // For benchmarks: read every byte and return something of it; multiply and add `steps` times in registers.
  uint64_t (*read_all)(const void* data, size_t bytes);
  float (*multiply_all)(Number number, int64_t steps);
  int chains;  // independent sums a step of multiply_all adds to: 16 lanes each; 1, 2 or 4 inputs a lane
};

// The table of each instruction set; those that were not compiled in are not defined (see isa.cpp).
const Kernels& portable_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512vnni_kernels();  // integer dot products
const Kernels& avx512bf16_kernels();  // and bfloat16 ones

}  // namespace openwork
