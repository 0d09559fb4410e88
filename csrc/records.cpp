#include "records.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace openwork {
namespace {

constexpr Size kLargest = Size{1} << 40;  // of n and k: far beyond any matrix, far below overflow
constexpr int kMostHeads = 1 << 16;
constexpr int kLargestHead = 4096;

Size lanes_up(Size size) { return (size + kLanes - 1) / kLanes * kLanes; }

const float* floats(const View& view, Size size, const char* what) {
  require(view.type == 'f' && view.axes() == 1 && view.size() == size, what);
  return view.as<float>();
}

std::vector<std::int32_t> copy_int32(const View& view, const char* what) {
  require(view.is_integer(4) && view.axes() == 1, what);
  return {view.as<std::int32_t>(), view.as<std::int32_t>() + view.size()};
}

void check_runs(const StepRows& rows) {
  require(!rows.starts.empty() && rows.starts.front() == 0 && rows.starts.back() == rows.count(),
          "starts must run from 0 to the number of rows");
  require(std::is_sorted(rows.starts.begin(), rows.starts.end()), "starts must ascend");
  for (std::size_t row = 0; row < rows.positions.size(); row++) {
    require(rows.positions[row] >= 0, "positions must not be negative");
    require(
        row == 0 || rows.sequence_of[row] != rows.sequence_of[row - 1] || rows.positions[row] > rows.positions[row - 1],
        "positions of a sequence must ascend");
  }
}

}  // namespace

void refuse(const std::string& what) { throw std::invalid_argument(what); }
void refuse_index(const std::string& what) { throw std::out_of_range(what); }

Size View::size() const {
  Size all = 1;
  for (const Size one : shape) all *= one;
  return all;
}

bool View::is_integer(int bytes) const {
  return itemsize == bytes && std::string_view("ilq").find(type) != std::string_view::npos;
}

Norm make_norm(const View& weight, const std::optional<View>& bias, float eps, bool centered) {
  const Size size = weight.size();
  require(size > 0, "a norm needs a weight of at least one entry");
  return {centered, size, eps, floats(weight, size, "weight must be one row of float32"),
          bias ? floats(*bias, size, "bias must be float32 and as long as weight") : nullptr};
}

Linear make_linear(const View& data, Number number, Size n, Size k, const std::optional<View>& bias) {
  require(n > 0 && k > 0 && n < kLargest && k < kLargest, "n and k must be positive");
  const Size blocks = lanes_up(n) / kLanes, pairs = (k + 63) / 64;
  bool typed = false, shaped = false;
  switch (number) {
    case Number::float32:
      typed = data.type == 'f';
      shaped = data.is({blocks, k, kLanes});
      break;
    case Number::bfloat16:
      typed = data.type == 'H';
      shaped = data.is({blocks, (k + 1) / 2, kLanes, 2});
      break;
    case Number::int8:
      typed = data.type == 'B';
      shaped = data.is({blocks, pairs, 17, 64});
      break;
    case Number::int4:
      typed = data.type == 'B';
      shaped = data.is({blocks, pairs, 9, 64});
      break;
    case Number::int8_channel:
      typed = data.type == 'B';
      shaped = data.is({blocks, (k + 31) / 32 * 8 + 1, 64});
      break;
  }
  require(typed, "packed data must be float32, uint16 (bfloat16 bits) or uint8 (codes), as its dtype asks");
  require(shaped, "packed data does not have the shape that n and k ask for");
  return {number, n, k, data.data, bias ? floats(*bias, n, "bias must be float32 with n entries") : nullptr};
}

Attention make_attention(const Linear& qkv, const Linear& out, const Heads& heads, float scale,
                         std::optional<float> softcap, std::optional<std::int32_t> window, const Norm* q_norm,
                         const Norm* k_norm) {
  const auto [num_heads, num_kv_heads, head_dim, rotary_dim] = heads;
  require(num_heads > 0 && num_heads < kMostHeads && num_kv_heads > 0 && num_heads % num_kv_heads == 0,
          "num_heads must be a positive multiple of num_kv_heads");
  require(head_dim > 0 && head_dim <= kLargestHead, "head_dim must be in 1 .. 4096");
  require(rotary_dim >= 0 && rotary_dim % 2 == 0 && rotary_dim <= head_dim,
          "rotary_dim must be even, at most head_dim");
  require(qkv.n == (Size{num_heads} + 2 * num_kv_heads) * head_dim, "qkv has the wrong number of outputs");
  require(out.k == Size{num_heads} * head_dim, "out has the wrong number of inputs");
  require(!softcap || *softcap > 0, "softcap must be positive");
  require(!window || *window > 0, "window must be positive");
  require(!q_norm || q_norm->size == head_dim, "q_norm must have head_dim entries");
  require(!k_norm || k_norm->size == head_dim, "k_norm must have head_dim entries");
  return {qkv,
          out,
          num_heads,
          num_kv_heads,
          head_dim,
          rotary_dim,
          scale,
          softcap.value_or(0.0f),
          window.value_or(0),
          q_norm != nullptr,
          k_norm != nullptr,
          q_norm ? *q_norm : Norm{},
          k_norm ? *k_norm : Norm{}};
}

Activation activation_of(std::string_view name) {
  if (name == "silu") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  if (name == "relu") return Activation::relu;
  refuse("unknown activation '" + std::string(name) + "'");
}

Mlp make_mlp(const Linear& up, const Linear& down, std::string_view activation, bool gated) {
  require(up.n == down.k * (gated ? 2 : 1), "up and down do not fit each other");
  return {up, down, activation_of(activation), gated};
}

Cache make_cache(const View& keys, const View& values, int head_dim, int block_size) {
  require(values.type == keys.type && std::string_view("fHB").find(keys.type) != std::string_view::npos,
          "keys and values must both be float32, uint16 holding bfloat16 bits, or uint8 holding int8 codes");
  require(block_size > 0 && block_size % kLanes == 0, "block_size must be a multiple of 16");
  require(head_dim > 0 && head_dim <= kLargestHead, "head_dim must be in 1 .. 4096");
  require(values.axes() >= 3, "values must have layers, blocks and heads");
  const Size layers = values.shape[0], blocks = values.shape[1], heads = values.shape[2], tiles = block_size / kLanes;
  const Size groups = lanes_up(head_dim) / kLanes, half = (head_dim + 1) / 2, quarter = (head_dim + 3) / 4;
  const char* keys_differ = "keys do not have the shape that the values, head_dim and block_size ask for";
  const char* values_differ = "values do not have the shape that head_dim and block_size ask for";
  require(heads > 0 && heads < kMostHeads, "values must have from 1 to 65535 heads");
  Number number = Number::int8;
  if (keys.type == 'f') {
    number = Number::float32;
    require(keys.is({layers, blocks, heads, tiles, head_dim, kLanes}), keys_differ);
    require(values.is({layers, blocks, heads, tiles, groups, kLanes, kLanes}), values_differ);
  } else if (keys.type == 'H') {
    number = Number::bfloat16;
    require(keys.is({layers, blocks, heads, tiles, half, kLanes, 2}), keys_differ);
    require(values.is({layers, blocks, heads, tiles, groups, kLanes / 2, kLanes, 2}), values_differ);
  } else {
    require(keys.is({layers, blocks, heads, tiles, quarter + 1, 64}), keys_differ);
    require(values.is({layers, blocks, heads, tiles, groups * kLanes / 4 + 1, 64}), values_differ);
  }
  return {number,     layers,   blocks, static_cast<int>(heads), block_size, head_dim, static_cast<char*>(keys.data),
          static_cast<char*>(values.data)};
}

StepRows make_rows(const View& positions, const View& starts, const View& tables, const std::optional<View>& cos,
                   const std::optional<View>& sin) {
  StepRows rows{};
  rows.positions = copy_int32(positions, "positions must be int32 (rows,)");
  rows.starts = copy_int32(starts, "starts must be int32 (sequences + 1,)");
  require(tables.is_integer(4) && tables.axes() == 2, "tables must be int32 (sequences, blocks)");
  for (int s = 0; s < rows.sequences(); s++)
    for (std::int32_t row = rows.starts[static_cast<std::size_t>(s)];
         row < rows.starts[static_cast<std::size_t>(s) + 1] && row < rows.count(); row++)
      rows.sequence_of.push_back(s);
  require(static_cast<Size>(rows.sequence_of.size()) == rows.count(), "starts must run from 0 to the number of rows");
  check_runs(rows);
  require(tables.shape[0] == rows.sequences(), "tables must have one row for each sequence");
  const auto highest = std::max_element(rows.positions.begin(), rows.positions.end());
  const Size most = highest == rows.positions.end() ? 0 : *highest / kLanes + 1;  // the smallest block has 16 slots
  rows.table_width = std::min(tables.shape[1], most);
  for (int s = 0; s < rows.sequences(); s++) {
    const std::int32_t* table = tables.as<std::int32_t>() + s * tables.shape[1];
    rows.tables.insert(rows.tables.end(), table, table + rows.table_width);
  }
  if (!cos && !sin) return rows;
  require(cos && sin && cos->type == 'f' && sin->type == 'f' && cos->axes() == 2 && cos->shape == sin->shape &&
              cos->shape[0] == rows.count(),
          "cos and sin must both be float32 (rows, rotary_dim / 2)");
  rows.half = cos->shape[1];
  rows.cos = cos->as<float>();
  rows.sin = sin->as<float>();
  return rows;
}

void stamp_rows(StepRows& rows, const View& stamped, const View& points) {
  rows.stamped = copy_int32(stamped, "stamped must be int32 (rows that are stamped,)");
  for (const std::int32_t row : rows.stamped)
    if (row < 0 || row >= rows.count())
      refuse_index("stamped row " + std::to_string(row) + " is not in 0 .. " + std::to_string(rows.count() - 1));
  require(points.type == 'I' && points.itemsize == 4 && points.axes() == 2 &&
              points.shape[0] == static_cast<Size>(rows.stamped.size()),
          "points must be uint32 (rows that are stamped, points)");
  rows.num_points = points.shape[1];
  rows.points = static_cast<std::uint32_t*>(points.data);
}

void check_stamps(const StepRows& rows, Size layer) {
  require(!rows.points || rows.num_points >= 1 + kOps * (layer + 1), "points must have 1 and 4 for each layer");
}

PackSource make_source(const Linear& target, Size row, const View& source) {
  require(source.axes() == 2 && source.shape[1] == target.k, "source must be (rows, k)");
  if (row < 0 || row > target.n || source.shape[0] > target.n - row)
    refuse_index("rows " + std::to_string(row) + " .. " + std::to_string(row + source.shape[0]) + " of a matrix with " +
                 std::to_string(target.n) + " outputs");
  const SourceNumber number = source.type == 'f'   ? SourceNumber::float32
                              : source.type == 'e' ? SourceNumber::float16
                                                   : SourceNumber::bfloat16;
  require(number != SourceNumber::bfloat16 || source.type == 'H',
          "source must be float32, float16, or uint16 holding bfloat16 bits");
  return {number, source.as<char>(), source.shape[0], target.k, source.strides[0], source.strides[1]};
}

void check_tables(const StepRows& rows, const Cache& cache) {
  for (int s = 0; s < rows.sequences(); s++) {
    const std::int32_t begin = rows.starts[static_cast<std::size_t>(s)],
                       end = rows.starts[static_cast<std::size_t>(s) + 1];
    if (begin == end) continue;
    const Size needed = rows.positions[static_cast<std::size_t>(end) - 1] / cache.block_size + 1;
    if (needed > rows.table_width)
      refuse_index("the table of sequence " + std::to_string(s) + " is too short: its rows need " +
                   std::to_string(needed) + " blocks");
    for (Size i = 0; i < needed; i++) {
      const std::int32_t block = rows.table(s)[i];
      if (block < 0 || block >= cache.blocks)
        refuse_index("block " + std::to_string(block) + " in the table of sequence " + std::to_string(s) +
                     ": the cache has " + std::to_string(cache.blocks) + " blocks");
    }
  }
}

// Only blocks that lie whole before a sequence's first row are compared: it writes to none of them.
void order_by_prefix(StepRows& rows, int block_size) {
  const auto known = [&](int s) {
    const std::int32_t row = rows.starts[static_cast<std::size_t>(s)], end = rows.starts[static_cast<std::size_t>(s) + 1];
    return rows.table(s) + (row == end ? 0 : rows.positions[static_cast<std::size_t>(row)] / block_size);
  };
  const int count = rows.sequences();
  rows.by_prefix.resize(static_cast<std::size_t>(count));
  std::iota(rows.by_prefix.begin(), rows.by_prefix.end(), 0);
  std::stable_sort(rows.by_prefix.begin(), rows.by_prefix.end(), [&](int a, int b) {
    return std::lexicographical_compare(rows.table(a), known(a), rows.table(b), known(b));
  });
  rows.shared.assign(static_cast<std::size_t>(count), 0);
  rows.first_place.assign(1, 0);
  rows.row_at.clear();
  rows.place_of.resize(rows.positions.size());
  for (int i = 0; i < count; i++) {
    const int s = rows.by_prefix[static_cast<std::size_t>(i)];
    if (i > 0) {
      const int before = rows.by_prefix[static_cast<std::size_t>(i) - 1];
      const auto parting = std::mismatch(rows.table(before), known(before), rows.table(s), known(s));
      const Size alike = (parting.second - rows.table(s)) * block_size / kSplit;
      rows.shared[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(alike);
    }
    for (std::int32_t row = rows.starts[static_cast<std::size_t>(s)]; row < rows.starts[static_cast<std::size_t>(s) + 1];
         row++) {
      rows.place_of[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(rows.row_at.size());
      rows.row_at.push_back(row);
    }
    rows.first_place.push_back(static_cast<std::int32_t>(rows.row_at.size()));
  }
}

void check_fit(const Attention& w, const Cache& cache, const StepRows& rows) {
  require(cache.kv_heads == w.num_kv_heads && cache.head_dim == w.head_dim, "the cache was made for other heads");
  require(w.rotary_dim == 0 || (rows.cos && rows.half == w.rotary_dim / 2),
          "cos and sin must have rotary_dim / 2 columns");
}

void check_layer(const Norm& attention_norm, const Attention& attention, const Norm& mlp_norm, const Mlp& mlp) {
  const Size size = attention.qkv.k;
  require(attention_norm.size == size && attention.out.n == size && mlp_norm.size == size && mlp.up.k == size &&
              mlp.down.n == size,
          "the parts of a layer must have rows of one size");
}

std::vector<Size> indices(const View& ids, Size limit, const char* name) {
  require(ids.axes() <= 1 && (ids.is_integer(4) || ids.is_integer(8)), "ids must be one row of int32 or int64");
  std::vector<Size> out(static_cast<std::size_t>(ids.size()));
  for (std::size_t i = 0; i < out.size(); i++) {
    out[i] = ids.is_integer(4) ? ids.as<std::int32_t>()[i] : ids.as<Size>()[i];
    if (out[i] < 0 || out[i] >= limit)
      refuse_index(std::string(name) + " " + std::to_string(out[i]) + " is not in 0 .. " + std::to_string(limit - 1));
  }
  return out;
}

Size rows_of(const View& x, Size size, const char* name) {
  if (x.type != 'f' || x.axes() < 1 || x.last() != size)
    refuse(std::string(name) + " must be float32 with " + std::to_string(size) + " entries a row");
  return size ? x.size() / size : 0;
}

}  // namespace openwork
