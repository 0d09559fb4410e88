// Records from arrays: every shape, number type, id and block is compared here, before a kernel reads memory.
//
// Knows arrays as a type letter, a shape and a pointer, so that it is independent of where they come from. Throws
// std::invalid_argument for what does not fit together and std::out_of_range for an index outside an array.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "device.h"

namespace openwork {

using Size = std::int64_t;

[[noreturn]] void refuse(const std::string& what);
[[noreturn]] void refuse_index(const std::string& what);
inline void require(bool holds, const char* what) {
  if (!holds) refuse(what);
}

// What is known of an array. `type` is the letter of Python's struct module: f float32, e float16, H uint16, ...
struct View {
  char type = '?';
  int itemsize = 0;
  std::vector<Size> shape;
  std::vector<Size> strides;  // bytes
  void* data = nullptr;

  Size axes() const { return static_cast<Size>(shape.size()); }
  Size size() const;
  Size last() const { return shape.empty() ? 1 : shape.back(); }
  bool is(std::initializer_list<Size> expected) const { return shape == std::vector<Size>(expected); }
  bool is_integer(int bytes) const;
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

Norm make_norm(const View& weight, const std::optional<View>& bias, float eps, bool centered);
Linear make_linear(const View& data, Number number, Size n, Size k, const std::optional<View>& bias);

struct Heads {
  int num_heads, num_kv_heads, head_dim, rotary_dim;
};
Attention make_attention(const Linear& qkv, const Linear& out, const Heads& heads, float scale,
                         std::optional<float> softcap, std::optional<std::int32_t> window, const Norm* q_norm,
                         const Norm* k_norm);
Activation activation_of(std::string_view name);
Mlp make_mlp(const Linear& up, const Linear& down, std::string_view activation, bool gated);
Cache make_cache(const View& keys, const View& values, int head_dim, int block_size);
StepRows make_rows(const View& positions, const View& starts, const View& tables, const std::optional<View>& cos,
                   const std::optional<View>& sin);
// That these rows are stamped; `points` is written to, so whoever made the rows holds it.
void stamp_rows(StepRows& rows, const View& stamped, const View& points);
PackSource make_source(const Linear& target, Size row, const View& source);

// That a stamp has room for this layer.
void check_stamps(const StepRows& rows, Size layer);
// That every block these rows read or write is one of `cache`.
void check_tables(const StepRows& rows, const Cache& cache);
// Puts the sequences in order of their prefixes. The tables are sound.
void order_by_prefix(StepRows& rows, int block_size);
void check_fit(const Attention& w, const Cache& cache, const StepRows& rows);
// That a residual stream of one size passes through all four.
void check_layer(const Norm& attention_norm, const Attention& attention, const Norm& mlp_norm, const Mlp& mlp);
// Integers of either width; each in 0 .. limit - 1.
std::vector<Size> indices(const View& ids, Size limit, const char* name);
// How many rows of `size` float32 entries x has.
Size rows_of(const View& x, Size size, const char* name);

}  // namespace openwork
