// Attention over one split of keys, and the merging of splits (Milakov & Gimelshein 2018, online softmax).
//
//     scores   lanes are keys, a chain over head_dim: the same tiles as a matrix product, a key tile being a block
//     softmax  sixteen strided lanes (position mod 16) over the keys the query sees, one fixed tree
//     mixing   lanes are entries of the value, a chain over exactly the query's own keys, ascending
//
// Queries of a tile share what they read and nothing else; a query's bits do not depend on who else is in the tile.

struct Floats32Values {
  using Value = float;
  static constexpr int kBlocksPerLine = 1;
  static Lanes read(const Value* p) { return load(p); }
};
struct Bfloat16Values {
  using Value = uint16_t;
  static constexpr int kBlocksPerLine = 2;
  static Lanes read(const Value* p) { return widen(p); }
};

// Keys of this split that query i sees: from .. to - 1, relative to the split.
struct Seen {
  int from[kMaxQueries], to[kMaxQueries];
};

// The split's tiles, sixteen keys each, wherever their blocks lie.
template <class T, class V>
struct SplitTiles {
  const typename T::Weight* keys[kSplitTiles];
  const typename V::Value* values[kSplitTiles];
};

// Tiles of keys from .. to - 1, relative to the split.
template <class T, class V>
inline void find_tiles(const KeysValues& kv, int64_t split, int from, int to, SplitTiles<T, V>& tiles) {
  const ptrdiff_t key_tile = steps_of<T>(kv.head_dim) * T::kWeights;
  const ptrdiff_t value_row = (kv.head_dim + kLanes - 1) / kLanes * kLanes;
  const int64_t position = split * kSplit + from / kLanes * kLanes;
  int64_t block = position / kv.block_size;
  int slot = static_cast<int>(position % kv.block_size);
  for (int tile = from / kLanes; tile * kLanes < to; tile++) {
    const char *keys = kv.keys + kv.table[block] * kv.key_block_stride,
               *values = kv.values + kv.table[block] * kv.value_block_stride;
    tiles.keys[tile] = reinterpret_cast<const typename T::Weight*>(keys) + slot / kLanes * key_tile;
    tiles.values[tile] = reinterpret_cast<const typename V::Value*>(values) + slot * value_row;
    slot += kLanes;
    if (slot == kv.block_size) {
      slot = 0;
      block++;
    }
  }
}

// For each tile at hand the tile to fetch meanwhile; where there is none, the tile itself, which costs nothing.
template <class T, class V>
inline void find_next(const Ahead& next, int from, int to, const SplitTiles<T, V>& tiles, SplitTiles<T, V>& found) {
  int begin = kSplit, end = 0;
  if (next.kv) {
    begin = static_cast<int>(next.first % kSplit);
    end = static_cast<int>(next.last % kSplit) + 1;
    find_tiles<T, V>(*next.kv, next.first / kSplit, begin, end, found);
  }
  for (int tile = from / kLanes; tile * kLanes < to; tile++)
    if (tile < begin / kLanes || tile * kLanes >= end) {
      found.keys[tile] = tiles.keys[tile];
      found.values[tile] = tiles.values[tile];
    }
}

template <class T, class V>
inline void score(const KeysValues& kv, const Queries& queries, int begin, int end, int from, int to,
                  const SplitTiles<T, V>& tiles, const SplitTiles<T, V>& next, float* scores) {
  const int first_tile = from / kLanes, last_tile = (to + kLanes - 1) / kLanes;
  for (int q = begin; q < end;) {
    const int rows = end - q < kMaxRows ? end - q : kMaxRows;
    for (int tile = first_tile; tile < last_tile;) {
      Tile<T> t;
      t.next[0] = nullptr;
      t.beside = true;
      for (int j = 0; j < 8 && tile + j < last_tile; j++) {
        t.weights[j] = tiles.keys[tile + j];
        if (q == begin) t.next[j] = next.keys[tile + j];
      }
      t.x = queries.q + q * queries.q_stride;
      t.x_stride = queries.q_stride;
      t.x_ahead = 0;
      t.y = scores + q * kSplit + tile * kLanes;
      t.y_stride = kSplit;
      t.bias = nullptr;
      t.steps = steps_of<T>(kv.head_dim);
      t.last_lanes = kLanes;
      t.resume = false;
      tile += run_rows<T>(t, rows, last_tile - tile);
    }
    q += rows;
  }
}

// Scores of the seen keys -> exp(score - high), in place; gives high and the sum.
inline void soften(const KeysValues& kv, float* scores, int from, int to, float* high, float* mass) {
  const int first = from / kLanes, last = (to - 1) / kLanes;
  const Lanes none = all(-__builtin_inff());
  Lanes top = none;
  for (int tile = first; tile <= last; tile++) {
    Lanes x = load(scores + tile * kLanes) * all(kv.scale);
    if (kv.softcap != 0.0f) x = soft_cap(x, kv.softcap);
    if (tile == first || tile == last)
      x = between(x, tile == first ? from % kLanes : 0, tile == last ? (to - 1) % kLanes + 1 : kLanes, none);
    store(scores + tile * kLanes, x);
    top = maximum(top, x);
  }
  *high = tree_max(top);
  Lanes sum = zero();
  for (int tile = first; tile <= last; tile++) {
    const Lanes x = exponential(load(scores + tile * kLanes) - all(*high));  // an unseen key: exactly zero
    store(scores + tile * kLanes, x);
    sum = sum + x;
  }
  *mass = tree_sum(sum);
}

// mixed[m][d] goes on: one product a key, keys from .. to - 1 in ascending order.
template <class V, int M, int D>
__attribute__((noinline)) void mix_tile(const typename V::Value* const* values, const typename V::Value* const* next,
                                        ptrdiff_t row, const float* weights, int from, int to, float* mixed) {
  Lanes sum[M][D];
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 8
    for (int d = 0; d < D; d++) sum[m][d] = load(mixed + m * row + d * kLanes);
  for (int key = from; key < to;) {
    const int tile = key / kLanes, stop = (tile + 1) * kLanes < to ? (tile + 1) * kLanes : to;
    const typename V::Value* v = values[tile] + (key % kLanes) * row;
    const ptrdiff_t ahead = next[tile] - values[tile];
    for (; key < stop; key++, v += row) {
      Lanes entries[D];
#pragma GCC unroll 8
      for (int d = 0; d < D; d++) {
        entries[d] = V::read(v + d * kLanes);
        if (d % V::kBlocksPerLine == 0) __builtin_prefetch(v + ahead + d * kLanes);
      }
#pragma GCC unroll 8
      for (int m = 0; m < M; m++) {
        const Lanes weight = all(weights[m * kSplit + key]);
#pragma GCC unroll 8
        for (int d = 0; d < D; d++) sum[m][d] = fma(weight, entries[d], sum[m][d]);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 8
    for (int d = 0; d < D; d++) store(mixed + m * row + d * kLanes, sum[m][d]);
}

// Where the values are read, and what is fetched meanwhile; null: nothing.
template <class V>
struct ValueTiles {
  const typename V::Value* const* now;
  const typename V::Value* const* next;
  ptrdiff_t dim;  // entries of a row, padding included
};

template <class V, int M, int D = max_blocks(M)>
inline void mix_rows(const ValueTiles<V>& tiles, const float* weights, int from, int to, float* mixed) {
  const typename V::Value *now[kSplitTiles], *next[kSplitTiles];
  for (ptrdiff_t d = 0; d < tiles.dim;) {
    for (int tile = from / kLanes; tile * kLanes < to; tile++) {
      now[tile] = tiles.now[tile] + d;
      next[tile] = tiles.next ? tiles.next[tile] + d : now[tile];
    }
    const ptrdiff_t left = (tiles.dim - d) / kLanes;
    if (left >= D) {
      mix_tile<V, M, D>(now, next, tiles.dim, weights, from, to, mixed + d);
      d += D * kLanes;
    } else if (D > 2 && left >= D / 2) {
      mix_tile<V, M, (D > 2 ? D / 2 : 1)>(now, next, tiles.dim, weights, from, to, mixed + d);
      d += D / 2 * kLanes;
    } else {
      mix_tile<V, M, 1>(now, next, tiles.dim, weights, from, to, mixed + d);
      d += kLanes;
    }
  }
}

template <class V, int M = kPanelRows>
inline void mix_some(int rows, const ValueTiles<V>& tiles, const float* weights, int from, int to, float* mixed) {
  if (from >= to) return;
  if (rows == M) return mix_rows<V, M>(tiles, weights, from, to, mixed);
  if constexpr (M > 1) mix_some<V, M - 1>(rows, tiles, weights, from, to, mixed);
}

// Queries q .. q + rows - 1: what only one sees, what all see together, what only one sees.
template <class V>
inline void mix(const ValueTiles<V>& tiles, const Seen& seen, int q, int rows, const float* scores, float* mixed) {
  int from = seen.from[q], to = seen.to[q];
  for (int i = q + 1; i < q + rows; i++) {
    from = seen.from[i] > from ? seen.from[i] : from;
    to = seen.to[i] < to ? seen.to[i] : to;
  }
  const bool shared = from < to;
  for (int i = q; i < q + rows; i++)
    mix_some<V>(1, tiles, scores + i * kSplit, seen.from[i], shared ? from : seen.to[i], mixed + i * tiles.dim);
  if (!shared) return;
  mix_some<V>(rows, tiles, scores + q * kSplit, from, to, mixed + q * tiles.dim);
  for (int i = q; i < q + rows; i++) mix_some<V>(1, tiles, scores + i * kSplit, to, seen.to[i], mixed + i * tiles.dim);
}

template <class T, class V>
void attend_split(const KeysValues& kv, const Queries& queries, int begin, int end, int64_t split, const Ahead& ahead,
                  float* scores, const Mixture& out) {
  const int64_t start = split * kSplit;
  Seen seen;
  int from = kSplit, to = 0;
  for (int i = begin; i < end; i++) {
    seen.from[i] = queries.first[i] > start ? static_cast<int>(queries.first[i] - start) : 0;
    seen.to[i] = queries.last[i] + 1 - start < kSplit ? static_cast<int>(queries.last[i] + 1 - start) : kSplit;
    from = seen.from[i] < from ? seen.from[i] : from;
    to = seen.to[i] > to ? seen.to[i] : to;
  }
  SplitTiles<T, V> tiles, next;
  find_tiles<T, V>(kv, split, from, to, tiles);
  find_next<T, V>(ahead, from, to, tiles, next);
  score<T, V>(kv, queries, begin, end, from, to, tiles, next, scores);
  const ptrdiff_t dim = (kv.head_dim + kLanes - 1) / kLanes * kLanes;
  for (int i = begin; i < end; i++) {
    soften(kv, scores + i * kSplit, seen.from[i], seen.to[i], out.high + i, out.mass + i);
    for (ptrdiff_t d = 0; d < dim; d += kLanes) store(out.mixed + i * dim + d, zero());
  }
  for (int i = begin; i < end; i += kPanelRows) {
    const ValueTiles<V> values = {tiles.values, i == begin ? next.values : nullptr, dim};
    mix<V>(values, seen, i, end - i < kPanelRows ? end - i : kPanelRows, scores, out.mixed);
  }
}

void attend(const KeysValues& kv, const Queries& queries, int begin, int end, int64_t split, const Ahead& next,
            float* scores, const Mixture& out) {
  if (kv.number == Number::float32)
    attend_split<Floats, Floats32Values>(kv, queries, begin, end, split, next, scores, out);
  else
    attend_split<Halves, Bfloat16Values>(kv, queries, begin, end, split, next, scores, out);
}

void merge(const Mixture& total, const Mixture& part, int query, int padded_dim) {
  float* a = total.mixed + static_cast<ptrdiff_t>(query) * padded_dim;
  const float* b = part.mixed + static_cast<ptrdiff_t>(query) * padded_dim;
  const Lanes high_a = all(total.high[query]), high_b = all(part.high[query]);
  const Lanes best = maximum(high_a, high_b);
  const Lanes old = exponential(high_a - best), fresh = exponential(high_b - best);
  float lanes[kLanes];
  store(lanes, best);
  total.high[query] = lanes[0];
  store(lanes, fma(all(part.mass[query]), fresh, all(total.mass[query]) * old));
  total.mass[query] = lanes[0];
  for (int d = 0; d < padded_dim; d += kLanes) store(a + d, fma(load(b + d), fresh, load(a + d) * old));
}

void finish(const Mixture& total, int query, int head_dim, float* out) {
  const int padded_dim = (head_dim + kLanes - 1) / kLanes * kLanes;
  const float* mixed = total.mixed + static_cast<ptrdiff_t>(query) * padded_dim;
  const Lanes mass = all(total.mass[query]);
  each_sixteen(head_dim, [&](int64_t i, int lanes) { store_some(out + i, load(mixed + i) / mass, lanes); });
}
