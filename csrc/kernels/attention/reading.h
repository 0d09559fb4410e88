// What is read of one split, and in which order: the key tiles, the value tiles, then those of whatever comes next.
//
//     | k0 k1 ... k15 | v0 v1 ... v15 | next k0 k1 ...        a line read of one tile fetches the same line of the tile
//       |-------------->                                      kLook bytes further on, so that memory is never waited
//                                                             for, not even while a softmax runs
//
// Queries of a tile share what they read and nothing else.

constexpr int kLook = 12 * 1024;
constexpr int kStream = 4;   // tiles of keys side by side: from memory, one stream would be slower
constexpr int kStretch = 4;  // tiles of values mixed at a time where they come from memory

// A number known to the compiler, and ways to come to one: the tiles of registers have fixed sizes.
template <int N>
struct Count {
  static constexpr int value = N;
};
// f(Count<n>) for an n of 1 .. Most.
template <int Most, class F>
inline void with_count(int n, const F& f) {
  if (n == Most) return f(Count<Most>{});
  if constexpr (Most > 1) with_count<Most - 1>(n, f);
}
// f(i, Count<n>) for runs of n, the longest first, that make up `at` .. total - 1.
template <int Most, class F>
inline void in_runs(int at, int total, const F& f) {
  for (; at + Most <= total; at += Most) f(at, Count<Most>{});
  if constexpr (Most > 1) in_runs<Most / 2>(at, total, f);
}

// Keys of this split that query i sees: from .. to - 1, relative to the split.
struct Seen {
  int from[kMaxQueries], to[kMaxQueries];
};

// Where the tiles lie, and what is fetched while each is read.
struct Reading {
  const char *keys[kSplitTiles], *values[kSplitTiles];
  const char *after_keys[kSplitTiles], *after_values[kSplitTiles];
};

// Tiles of keys from .. to - 1, relative to the split, wherever their blocks lie.
inline void find_tiles(const KeysValues& kv, int64_t split, int from, int to, const char** keys, const char** values) {
  const int64_t position = split * kSplit + from / kLanes * kLanes;
  int64_t block = position / kv.block_size;
  int slot = static_cast<int>(position % kv.block_size);
  for (int tile = from / kLanes; tile * kLanes < to; tile++) {
    keys[tile] = kv.keys + kv.table[block] * kv.key_block_stride + slot / kLanes * kv.key_tile;
    values[tile] = kv.values + kv.table[block] * kv.value_block_stride + slot / kLanes * kv.value_tile;
    slot += kLanes;
    if (slot == kv.block_size) {
      slot = 0;
      block++;
    }
  }
}

inline void plan_reading(const KeysValues& kv, int64_t split, int from, int to, const Ahead& next, Reading& reading) {
  find_tiles(kv, split, from, to, reading.keys, reading.values);
  const char* order[4 * kSplitTiles];
  int count = 0;
  const int first = from / kLanes, last = (to + kLanes - 1) / kLanes;
  for (int tile = first; tile < last; tile++) order[count++] = reading.keys[tile];
  for (int tile = first; tile < last; tile++) order[count++] = reading.values[tile];
  if (next.kv) {
    const char *keys[kSplitTiles], *values[kSplitTiles];
    const int begin = static_cast<int>(next.first % kSplit), end = static_cast<int>(next.last % kSplit) + 1;
    find_tiles(*next.kv, next.first / kSplit, begin, end, keys, values);
    for (int tile = begin / kLanes; tile * kLanes < end; tile++) order[count++] = keys[tile];
    for (int tile = begin / kLanes; tile * kLanes < end; tile++) order[count++] = values[tile];
  }
  const ptrdiff_t bytes = kv.key_tile > kv.value_tile ? kv.key_tile : kv.value_tile;
  const int look = static_cast<int>((kLook + bytes - 1) / bytes);
  for (int i = 0; i < 2 * (last - first); i++) {
    const char* after = order[i + look < count ? i + look : i];  // at the end the tile itself, which costs little
    (i < last - first ? reading.after_keys[first + i] : reading.after_values[first + i - (last - first)]) = after;
  }
}

// The scores of a split as a query sees them: exp(weight_of(tile)) is what its keys weigh, before the sum divides it.
struct Softened {
  float* scores;
  float scale, high;
  int from, to;

  int first() const { return from / kLanes; }
  int last() const { return (to - 1) / kLanes; }
  // e^(score * scale - high) of sixteen keys; of an unseen one exactly zero.
  Lanes weights(int tile) const { return exponential(load(scores + tile * kLanes) * all(scale) - all(high)); }
};

// Lanes of the tile that lie in from .. to - 1; `other` elsewhere.
inline Lanes only_seen(Lanes x, int tile, int from, int to, Lanes other) {
  const int begin = from - tile * kLanes, end = to - tile * kLanes;
  return begin <= 0 && end >= kLanes ? x : between(x, begin > 0 ? begin : 0, end < kLanes ? end : kLanes, other);
}

// Finds the highest of the seen scores times `scale`, and puts -infinity in place of the unseen ones of their tiles.
// A soft cap, and a scale that is not positive, are applied to the scores in memory first.
inline Softened find_high(const KeysValues& kv, float* scores, float scale, int from, int to) {
  Softened out = {scores, scale, 0.0f, from, to};
  if (kv.softcap != 0.0f || !(scale > 0.0f)) {
    for (int tile = out.first(); tile <= out.last(); tile++) {
      const Lanes x = load(scores + tile * kLanes) * all(scale);
      store(scores + tile * kLanes, kv.softcap != 0.0f ? soft_cap(x, kv.softcap) : x);
    }
    out.scale = 1.0f;
  }
  const Lanes none = all(-__builtin_inff());
  const int ends[2] = {out.first(), out.last()};
  for (const int tile : ends)
    store(scores + tile * kLanes, only_seen(load(scores + tile * kLanes), tile, from, to, none));
  Lanes even = none, odd = none;
  int tile = out.first();
  for (; tile < out.last(); tile += 2) {
    even = maximum(even, load(scores + tile * kLanes));
    odd = maximum(odd, load(scores + (tile + 1) * kLanes));
  }
  if (tile == out.last()) even = maximum(even, load(scores + tile * kLanes));
  out.high = tree_max(maximum(even, odd)) * out.scale;
  return out;
}
