// What happens to one row: norms, activations, rotation, table rows, cache slots.
//
// A sum over a row is four strided sets of sixteen lanes and one fixed tree, so it depends on the row's size alone.

// sum over i of term(lanes at i); lanes beyond the size are zero.
template <class Term>
inline float strided_sum(int64_t size, Term term) {
  Lanes sum[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= size; i += 4 * kLanes)
    for (int j = 0; j < 4; j++) sum[j] = sum[j] + term(i + j * kLanes, kLanes);
  for (int j = 0; i < size; i += kLanes, j++)
    sum[j] = sum[j] + term(i, size - i < kLanes ? static_cast<int>(size - i) : kLanes);
  return tree_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

inline void normalize(const float* x, const float* weight, const float* bias, float shift, float spread, int64_t size,
                      float* out) {
  const Lanes by = all(1.0f / spread), less = all(shift);
  each_sixteen(size, [&](int64_t i, int lanes) {
    const Lanes y = (load_some(x + i, lanes) - less) * by * load_some(weight + i, lanes);
    store_some(out + i, bias ? y + load_some(bias + i, lanes) : y, lanes);
  });
}

void norm_rms(const float* x, const float* weight, const float* bias, float eps, int64_t size, float* out) {
  const float squares = strided_sum(size, [&](int64_t i, int lanes) {
    const Lanes y = load_some(x + i, lanes);
    return y * y;
  });
  normalize(x, weight, bias, 0.0f, __builtin_sqrtf(squares / static_cast<float>(size) + eps), size, out);
}

void norm_layer(const float* x, const float* weight, const float* bias, float eps, int64_t size, float* out) {
  const float mean =
      strided_sum(size, [&](int64_t i, int lanes) { return load_some(x + i, lanes); }) / static_cast<float>(size);
  const float squares = strided_sum(size, [&](int64_t i, int lanes) {
    const Lanes y = between(load_some(x + i, lanes) - all(mean), 0, lanes, zero());
    return y * y;
  });
  normalize(x, weight, bias, mean, __builtin_sqrtf(squares / static_cast<float>(size) + eps), size, out);
}

void add(float* x, const float* y, int64_t size) {
  each_sixteen(
      size, [&](int64_t i, int lanes) { store_some(x + i, load_some(x + i, lanes) + load_some(y + i, lanes), lanes); });
}

void scale(float* x, float factor, int64_t size) {
  each_sixteen(size, [&](int64_t i, int lanes) { store_some(x + i, load_some(x + i, lanes) * all(factor), lanes); });
}

void cap_all(float* x, float cap, int64_t size) {
  each_sixteen(size, [&](int64_t i, int lanes) { store_some(x + i, soft_cap(load_some(x + i, lanes), cap), lanes); });
}

template <Activation kind>
void activate_all(const float* gate, const float* up, int64_t size, float* out) {
  each_sixteen(size, [&](int64_t i, int lanes) {
    const Lanes y = activate<kind>(load_some(gate + i, lanes));
    store_some(out + i, up ? y * load_some(up + i, lanes) : y, lanes);
  });
}

void activate_row(Activation kind, const float* gate, const float* up, int64_t size, float* out) {
  switch (kind) {
    case Activation::silu:
      return activate_all<Activation::silu>(gate, up, size, out);
    case Activation::gelu:
      return activate_all<Activation::gelu>(gate, up, size, out);
    case Activation::gelu_tanh:
      return activate_all<Activation::gelu_tanh>(gate, up, size, out);
    case Activation::relu:
      return activate_all<Activation::relu>(gate, up, size, out);
  }
}

void rotate(float* x, const float* cos, const float* sin, int64_t half) {
  each_sixteen(half, [&](int64_t i, int lanes) {
    const Lanes a = load_some(x + i, lanes), b = load_some(x + half + i, lanes);
    const Lanes c = load_some(cos + i, lanes), s = load_some(sin + i, lanes);
    store_some(x + i, a * c - b * s, lanes);
    store_some(x + half + i, b * c + a * s, lanes);
  });
}

inline float float_of(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float out;
  __builtin_memcpy(&out, &wide, sizeof out);
  return out;
}

// Row `lane` of a block of quantised weights: code times scale.
template <class F>
void embed_groups(const uint8_t* block, int64_t k, int64_t lane, float factor, float* out) {
  float scales[kLanes];
  for (int64_t i = 0; i < k; i += kGroup) {
    const int g = static_cast<int>(i / kGroup % F::kGroups);
    const uint8_t* unit = block + i / (F::kGroups * kGroup) * kUnitBytes<F>;
    if constexpr (F::kGroupScales)
      store(scales, from_float16(reinterpret_cast<const uint16_t*>(unit) + g * kLanes));
    else
      store(scales, load(reinterpret_cast<const float*>(block + units_of<F>(k) * kUnitBytes<F>)));
    const uint8_t* codes = unit + (F::kLead + g * F::kGroupLines) * kLine + 4 * lane;
    const int64_t left = k - i < kGroup ? k - i : kGroup;
    for (int64_t j = 0; j < left; j++)
      out[i + j] = static_cast<float>(F::code(codes, static_cast<int>(j)) - F::kOffset) * scales[lane] * factor;
  }
}

void embed(Number number, const void* table, int64_t k, int64_t id, float factor, float* out) {
  const int64_t block = id / kLanes, lane = id % kLanes;
  if (is_quantised(number)) {
    return with_groups(number, [&](auto format) {
      using F = decltype(format);
      embed_groups<F>(static_cast<const uint8_t*>(table) + block * block_bytes<F>(k), k, lane, factor, out);
    });
  }
  if (number == Number::float32) {
    const float* p = static_cast<const float*>(table) + block * k * kLanes + lane;
    for (int64_t i = 0; i < k; i++) out[i] = p[i * kLanes] * factor;
    return;
  }
  const uint16_t* p = static_cast<const uint16_t*>(table) + (block * ((k + 1) / 2) * kLanes + lane) * 2;
  for (int64_t i = 0; i < k; i++) out[i] = float_of(p[i / 2 * 2 * kLanes + i % 2]) * factor;
}

void write_key(Number number, const float* k, int head_dim, void* tile, int lane) {
  if (number == Number::float32) {
    float* out = static_cast<float*>(tile) + lane;
    for (int i = 0; i < head_dim; i++) out[i * kLanes] = k[i];
    return;
  }
  uint16_t* out = static_cast<uint16_t*>(tile) + 2 * lane;
  uint16_t bits[kLanes];
  each_sixteen(head_dim, [&](int64_t i, int lanes) {
    narrow(bits, load_some(k + i, lanes));
    for (int j = 0; j < (lanes + 1) / 2 * 2; j++) out[(i + j) / 2 * 2 * kLanes + j % 2] = bits[j];  // an odd end: zero
  });
}

void write_value(Number number, const float* v, int head_dim, void* row) {
  each_sixteen(head_dim, [&](int64_t i, int lanes) {  // the row is padded to sixteen; the padding stays zero
    const Lanes value = load_some(v + i, lanes);
    if (number == Number::float32)
      store(static_cast<float*>(row) + i, value);
    else
      narrow(static_cast<uint16_t*>(row) + i, value);
  });
}
