// Which product a number type takes, and the form in which it reads a row.

// f(Int8{}), f(Int8Channel{}) or f(Int4{}).
template <class F>
auto with_groups(Number number, F f) {
  return number == Number::int8 ? f(Int8{}) : number == Number::int4 ? f(Int4{}) : f(Int8Channel{});
}

void product(const Product& p, int64_t first_block, int64_t last_block, int64_t first_row, int64_t last_row) {
  if (p.number == Number::float32) return product_of<Floats>(p, first_block, last_block, first_row, last_row);
  if (p.number == Number::bfloat16) return product_of<Halves>(p, first_block, last_block, first_row, last_row);
  with_groups(p.number, [&](auto format) {
    group_product_of<decltype(format)>(p, first_block, last_block, first_row, last_row);
  });
}

// Rows are kept an odd number of cache lines apart, so that the rows of a tile do not fall into one cache set.
ptrdiff_t prepared_bytes(Number number, int64_t k) {
  int64_t bytes;
  if (number == Number::float32)
    bytes = 4 * k;
  else if (number == Number::bfloat16)
    bytes = (k + 1) / 2 * kPairWords * static_cast<int64_t>(sizeof(PairInput));
  else
    bytes = with_groups(number, [&](auto format) { return group_prepared_bytes<decltype(format)>(k); });
  return static_cast<ptrdiff_t>(((bytes + 63) / 64 | 1) * 64);
}

void prepare(Number number, const float* x, int64_t first, int64_t last, void* out) {
  if (is_quantised(number))
    return with_groups(number, [&](auto format) { prepare_groups<decltype(format)>(x, first, last, out); });
  each_sixteen(last - first, [&](int64_t offset, int lanes) {
    const int64_t i = first + offset;
    const Lanes value = load_some(x + i, lanes);  // zeros beyond; the row has room up to a cache line
    if (number == Number::float32) {
      store(static_cast<float*>(out) + i, value);
    } else if constexpr (kPairWords == 1) {
      narrow(static_cast<uint16_t*>(out) + i, value);
    } else {
      uint16_t bits[kLanes];
      narrow(bits, value);
      store(static_cast<float*>(out) + i, widen(bits));
    }
  });
}
