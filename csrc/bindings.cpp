// The one file that knows Python: takes arrays by the buffer protocol, releases the interpreter, calls Device.
//
// Nothing that Python can pass makes a kernel read or write outside an array: records.cpp compares every size, and a
// handle holds the arrays it points to. Positions and tables are copied, so later changes to them do no harm.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>

#include "isa.h"
#include "records.h"

namespace nb = nanobind;
using namespace openwork;

namespace {

// The buffer of a Python object, held while this lives; C-contiguous unless it is strided.
class Array {
 public:
  enum Access { read, write, strided };

  Array(nb::handle source, Access access) {
    const int flags = access == write  ? PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE
                      : access == read ? PyBUF_C_CONTIGUOUS | PyBUF_FORMAT
                                       : PyBUF_STRIDES | PyBUF_FORMAT;
    if (PyObject_GetBuffer(source.ptr(), &buffer_, flags) != 0) throw nb::python_error();
  }
  ~Array() { PyBuffer_Release(&buffer_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  char type() const { return buffer_.format && buffer_.format[0] && !buffer_.format[1] ? buffer_.format[0] : '?'; }
  Size size() const { return buffer_.len / buffer_.itemsize; }
  Size bytes() const { return buffer_.len; }
  Size last() const { return buffer_.ndim ? buffer_.shape[buffer_.ndim - 1] : 1; }
  template <class T>
  T* data() const {
    return static_cast<T*>(buffer_.buf);
  }
  View view() const {
    return {type(),
            static_cast<int>(buffer_.itemsize),
            {buffer_.shape, buffer_.shape + buffer_.ndim},
            {buffer_.strides, buffer_.strides + buffer_.ndim},
            buffer_.buf};
  }

 private:
  Py_buffer buffer_{};
};

// A row array of float32: the quick way, for the calls of every step.
class Floats : public Array {
 public:
  Floats(nb::handle source, const char* name, Access access = read) : Array(source, access), name_(name) {
    if (type() != 'f') refuse(std::string(name) + " must be a float32 array");
  }
  Size rows(Size entries) const {
    if (last() != entries) refuse(std::string(name_) + " must have " + std::to_string(entries) + " entries a row");
    return entries ? size() / entries : 0;
  }
  float* filled(Size entries) const {
    if (size() != entries) refuse(std::string(name_) + " must have " + std::to_string(entries) + " entries in all");
    return data<float>();
  }

 private:
  const char* name_;
};

using Held = std::vector<std::shared_ptr<const Array>>;

template <class Record>
struct Handle {
  Record record;
  Held held;
};
using NormHandle = Handle<Norm>;
using LinearHandle = Handle<Linear>;
using AttentionHandle = Handle<Attention>;
using MlpHandle = Handle<Mlp>;
using CacheHandle = Handle<Cache>;
struct RowsHandle : Handle<StepRows> {
  Size block_size = 0, blocks = 0;  // of the cache that the tables were last compared with
};

std::optional<View> hold(Held& held, nb::handle source, Array::Access access = Array::read) {
  if (source.is_none()) return std::nullopt;
  held.push_back(std::make_shared<Array>(source, access));
  return held.back()->view();
}

View hold_one(Held& held, nb::handle source, Array::Access access = Array::read) {
  held.push_back(std::make_shared<Array>(source, access));
  return held.back()->view();
}

void hold_all(Held& held, const Held& more) { held.insert(held.end(), more.begin(), more.end()); }

void check_step(RowsHandle& rows, const Cache& cache, Size layer) {
  if (layer < 0 || layer >= cache.layers)
    refuse_index("layer " + std::to_string(layer) + ": the cache has " + std::to_string(cache.layers) + " layers");
  check_stamps(rows.record, layer);
  if (rows.block_size == cache.block_size && rows.blocks == cache.blocks) return;
  check_tables(rows.record, cache);
  order_by_prefix(rows.record, cache.block_size);
  rows.block_size = cache.block_size;
  rows.blocks = cache.blocks;
}

void require_hashes(const Array& hashes, Size rows) {
  const bool is_word = hashes.type() == 'L' || hashes.type() == 'Q';
  require(is_word && hashes.bytes() == 8 * hashes.size() && hashes.size() == rows, "hashes must be uint64, one a row");
}

template <class F>
auto unlocked(const F& f) {
  const nb::gil_scoped_release release;
  return f();
}

void make_device(Device* self, int threads, const std::string& isa) {
  require(threads >= 1 && threads <= 1024, "threads must be in 1 .. 1024");
  for (const Kernels* kernels : available_kernels())
    if (isa == kernels->isa) {
      new (self) Device(*kernels, threads);
      return;
    }
  refuse("no kernels for '" + isa + "' here");
}

Number number_of(const std::string& name) {
  if (name == "float32") return Number::float32;
  if (name == "bfloat16") return Number::bfloat16;
  if (name == "int8") return Number::int8;
  if (name == "int8-channel") return Number::int8_channel;
  if (name == "int4") return Number::int4;
  refuse("dtype must be float32, bfloat16, int8, int8-channel or int4");
}

void bind_records(nb::module_& m) {
  nb::class_<NormHandle>(m, "Norm").def(
      "__init__",
      [](NormHandle* self, nb::object weight, nb::object bias, float eps, bool centered) {
        Held held;
        const View w = hold_one(held, weight);
        const Norm record = make_norm(w, hold(held, bias), eps, centered);
        new (self) NormHandle{record, held};
      },
      nb::arg("weight"), nb::arg("bias").none(), nb::arg("eps"), nb::arg("centered"));
  nb::class_<LinearHandle>(m, "Linear")
      .def(
          "__init__",
          [](LinearHandle* self, nb::object data, const std::string& dtype, Size n, Size k, nb::object bias) {
            Held held;
            const View d = hold_one(held, data);
            const Linear record = make_linear(d, number_of(dtype), n, k, hold(held, bias));
            new (self) LinearHandle{record, held};
          },
          nb::arg("data"), nb::arg("dtype"), nb::arg("n"), nb::arg("k"), nb::arg("bias").none());
  nb::class_<AttentionHandle>(m, "Attention")
      .def(
          "__init__",
          [](AttentionHandle* self, const LinearHandle& qkv, const LinearHandle& out, int num_heads, int num_kv_heads,
             int head_dim, int rotary_dim, float scale, std::optional<float> softcap,
             std::optional<std::int32_t> window, const NormHandle* q_norm, const NormHandle* k_norm) {
            const Attention record =
                make_attention(qkv.record, out.record, {num_heads, num_kv_heads, head_dim, rotary_dim}, scale, softcap,
                               window, q_norm ? &q_norm->record : nullptr, k_norm ? &k_norm->record : nullptr);
            Held held = qkv.held;
            hold_all(held, out.held);
            if (q_norm) hold_all(held, q_norm->held);
            if (k_norm) hold_all(held, k_norm->held);
            new (self) AttentionHandle{record, held};
          },
          nb::arg("qkv"), nb::arg("out"), nb::arg("num_heads"), nb::arg("num_kv_heads"), nb::arg("head_dim"),
          nb::arg("rotary_dim"), nb::arg("scale"), nb::arg("softcap").none(), nb::arg("window").none(),
          nb::arg("q_norm").none(), nb::arg("k_norm").none());
  nb::class_<MlpHandle>(m, "Mlp").def(
      "__init__",
      [](MlpHandle* self, const LinearHandle& up, const LinearHandle& down, const std::string& activation, bool gated) {
        const Mlp record = make_mlp(up.record, down.record, activation, gated);
        Held held = up.held;
        hold_all(held, down.held);
        new (self) MlpHandle{record, held};
      },
      nb::arg("up"), nb::arg("down"), nb::arg("activation"), nb::arg("gated"));
  nb::class_<CacheHandle>(m, "Cache")
      .def(
          "__init__",
          [](CacheHandle* self, nb::object keys, nb::object values, int head_dim, int block_size) {
            Held held;
            const View k = hold_one(held, keys, Array::write), v = hold_one(held, values, Array::write);
            const Cache record = make_cache(k, v, head_dim, block_size);
            new (self) CacheHandle{record, held};
          },
          nb::arg("keys"), nb::arg("values"), nb::arg("head_dim"), nb::arg("block_size"));
  nb::class_<RowsHandle>(m, "Rows").def(
      "__init__",
      [](RowsHandle* self, nb::object positions, nb::object starts, nb::object tables, nb::object cos, nb::object sin,
         nb::object stamped, nb::object points) {
        Held held, copied;
        const std::optional<View> c = hold(held, cos), s = hold(held, sin);
        const View p = hold_one(copied, positions), b = hold_one(copied, starts), t = hold_one(copied, tables);
        RowsHandle handle;
        handle.record = make_rows(p, b, t, c, s);
        if (!points.is_none()) stamp_rows(handle.record, hold_one(copied, stamped), hold_one(held, points, Array::write));
        handle.held = held;
        new (self) RowsHandle(std::move(handle));
      },
      nb::arg("positions"), nb::arg("starts"), nb::arg("tables"), nb::arg("cos").none(), nb::arg("sin").none(),
      nb::arg("stamped").none() = nb::none(), nb::arg("points").none() = nb::none());
}

void bind_layer_ops(nb::class_<Device>& device) {
  device
      .def("embed",
           [](Device& d, const LinearHandle& table, nb::handle ids, float scale, nb::handle out) {
             const std::vector<Size> rows = indices(Array(ids, Array::read).view(), table.record.n, "token id");
             const Floats y(out, "out", Array::write);
             float* target = y.filled(static_cast<Size>(rows.size()) * table.record.k);
             unlocked([&] { d.embed(table.record, rows.data(), static_cast<Size>(rows.size()), scale, target); });
           })
      .def("linear",
           [](Device& d, nb::handle x, const LinearHandle& w, nb::handle out) {
             const Floats in(x, "x"), y(out, "out", Array::write);
             const Size rows = in.rows(w.record.k);
             float* target = y.filled(rows * w.record.n);
             unlocked([&] { d.linear(in.data<float>(), rows, w.record, target); });
           })
      .def("logits",
           [](Device& d, nb::handle x, const LinearHandle& w, float softcap, nb::handle out) {
             const Floats in(x, "x"), y(out, "out", Array::write);
             const Size rows = in.rows(w.record.k);
             float* target = y.filled(rows * w.record.n);
             unlocked([&] { d.logits(in.data<float>(), rows, w.record, softcap, target); });
           })
      .def("best",
           [](Device& d, nb::handle x, const LinearHandle& w, float softcap, nb::handle ids, nb::handle finite,
              nb::handle hashes) {
             const Floats in(x, "x");
             const Array best(ids, Array::write), sound(finite, Array::write);
             const Size rows = in.rows(w.record.k);
             require(best.view().is_integer(8) && best.size() == rows, "ids must be int64, one a row");
             require(sound.type() == '?' && sound.bytes() == sound.size() && sound.size() == rows,
                     "finite must be bool, one a row");
             std::optional<Array> kept;
             if (!hashes.is_none()) require_hashes(kept.emplace(hashes, Array::write), rows);
             std::uint64_t* sums = kept ? kept->data<std::uint64_t>() : nullptr;
             unlocked([&] {
               d.best(in.data<float>(), rows, w.record, softcap, best.data<Size>(), sound.data<bool>(), sums);
             });
           },
           nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none())
      .def("norm",
           [](Device& d, nb::handle x, const NormHandle& w, nb::handle out) {
             const Floats in(x, "x"), y(out, "out", Array::write);
             const Size rows = in.rows(w.record.size);
             float* target = y.filled(rows * w.record.size);
             unlocked([&] { d.norm(in.data<float>(), rows, w.record, target); });
           })
      .def("add",
           [](Device& d, nb::handle x, nb::handle y) {
             const Floats sum(x, "x", Array::write), more(y, "y");
             const float* source = more.filled(sum.size());
             unlocked([&] { d.add(sum.data<float>(), source, sum.size()); });
           })
      .def("act",
           [](Device& d, nb::handle x, const std::string& kind, nb::handle out) {
             const Floats in(x, "x"), y(out, "out", Array::write);
             const Activation activation = activation_of(kind);
             float* target = y.filled(in.size());
             unlocked([&] { d.act(in.data<float>(), in.size(), activation, target); });
           })
      .def("mlp_block", [](Device& d, nb::handle x, const MlpHandle& w, nb::handle out) {
        const Floats in(x, "x"), y(out, "out", Array::write);
        const Size rows = in.rows(w.record.up.k);
        float* target = y.filled(rows * w.record.down.n);
        unlocked([&] { d.mlp_block(in.data<float>(), rows, w.record, target); });
      });
}

void bind_attention_ops(nb::class_<Device>& device) {
  device
      .def("rotate",
           [](Device& d, nb::handle x, Size heads, Size head_dim, const RowsHandle& rows) {
             const Floats in(x, "x", Array::write);
             require(rows.record.cos != nullptr, "rows have no cos and sin");
             require(heads >= 0 && head_dim >= 2 * rows.record.half && heads < (1 << 24) && head_dim < (1 << 24),
                     "cos and sin must have at most head_dim / 2 columns");
             float* values = in.filled(rows.record.count() * heads * head_dim);
             unlocked([&] { d.rotate(values, heads, head_dim, rows.record); });
           })
      .def("write",
           [](Device& d, const CacheHandle& kv, Size layer, nb::handle k, nb::handle v, RowsHandle& rows) {
             const Floats keys(k, "k"), values(v, "v");
             check_step(rows, kv.record, layer);
             const Size size = rows.record.count() * kv.record.kv_heads * kv.record.head_dim;
             const float *from_k = keys.filled(size), *from_v = values.filled(size);
             unlocked([&] { d.write(kv.record, layer, from_k, from_v, rows.record); });
           })
      .def("attend",
           [](Device& d, nb::handle q, const CacheHandle& kv, Size layer, RowsHandle& rows, const AttentionHandle& w,
              nb::handle out) {
             const Floats in(q, "q"), y(out, "out", Array::write);
             check_step(rows, kv.record, layer);
             require(kv.record.kv_heads == w.record.num_kv_heads && kv.record.head_dim == w.record.head_dim,
                     "the cache was made for other heads");
             const Size size = rows.record.count() * w.record.num_heads * w.record.head_dim;
             const float* source = in.filled(size);
             float* target = y.filled(size);
             unlocked([&] { d.attend(source, kv.record, layer, rows.record, w.record, target); });
           })
      .def("attention_block",
           [](Device& d, nb::handle x, const AttentionHandle& w, RowsHandle& rows, const CacheHandle& kv, Size layer,
              nb::handle out) {
             const Floats in(x, "x"), y(out, "out", Array::write);
             check_step(rows, kv.record, layer);
             check_fit(w.record, kv.record, rows.record);
             require(in.rows(w.record.qkv.k) == rows.record.count(), "x must have as many rows as the step");
             float* target = y.filled(rows.record.count() * w.record.out.n);
             unlocked([&] { d.attention_block(in.data<float>(), w.record, rows.record, kv.record, layer, target); });
           })
      .def("pre_norm_layer",
           [](Device& d, nb::handle x, const NormHandle& attention_norm, const AttentionHandle& attention,
              const NormHandle& mlp_norm, const MlpHandle& mlp, RowsHandle& rows, const CacheHandle& kv, Size layer) {
             const Floats in(x, "x", Array::write);
             check_step(rows, kv.record, layer);
             check_fit(attention.record, kv.record, rows.record);
             check_layer(attention_norm.record, attention.record, mlp_norm.record, mlp.record);
             require(in.rows(attention.record.qkv.k) == rows.record.count(), "x must have as many rows as the step");
             unlocked([&] {
               d.pre_norm_layer(in.data<float>(), attention_norm.record, attention.record, mlp_norm.record, mlp.record,
                                rows.record, kv.record, layer);
             });
           })
      .def("copy_blocks",
           [](Device& d, const CacheHandle& kv, nb::handle sources, nb::handle targets) {
             const std::vector<Size> from =
                 indices(Array(sources, Array::read).view(), kv.record.blocks, "source block");
             const std::vector<Size> to = indices(Array(targets, Array::read).view(), kv.record.blocks, "target block");
             require(from.size() == to.size(), "sources and targets must be equally many");
             unlocked([&] { d.copy_blocks(kv.record, from.data(), to.data(), from.size()); });
           })
      .def("pack_rows", [](Device& d, const LinearHandle& packed, nb::handle data, Size row, nb::handle source) {
        const Array target(data, Array::write), rows(source, Array::strided);  // the same memory, and writable
        require(target.data<void>() == packed.record.weights, "data must be the array that the handle was made of");
        const PackSource from = make_source(packed.record, row, rows.view());
        bool is_finite = false;
        unlocked([&] { is_finite = d.pack(packed.record, row, from); });
        return is_finite;
      });
}

void bind_head_ops(nb::class_<Device>& device) {
  device
      .def("logsumexp",
           [](Device& d, nb::handle logits, nb::handle out) {
             const Floats x(logits, "logits");
             const Array y(out, Array::write);
             require(x.last() > 0, "logits must have at least one column");
             require(y.type() == 'd' && y.size() == x.rows(x.last()), "out must be float64, one a row");
             unlocked([&] { d.logsumexp(x.data<float>(), y.size(), x.last(), y.data<double>()); });
           })
      .def("argmax",
           [](Device& d, nb::handle logits, nb::handle out) {
             const Floats x(logits, "logits");
             const Array y(out, Array::write);
             require(x.last() > 0, "logits must have at least one column");
             require(y.view().is_integer(8) && y.size() == x.rows(x.last()), "out must be int64, one a row");
             unlocked([&] { d.argmax(x.data<float>(), y.size(), x.last(), y.data<Size>()); });
           })
      .def("is_finite",
           [](Device& d, nb::handle logits, nb::handle out) {
             const Floats x(logits, "logits");
             const Array y(out, Array::write);
             require(x.last() > 0, "logits must have at least one column");
             require(y.type() == '?' && y.bytes() == y.size() && y.size() == x.rows(x.last()),
                     "out must be bool, one a row");
             unlocked([&] { d.is_finite(x.data<float>(), y.size(), x.last(), y.data<bool>()); });
           })
      .def("hash_rows",
           [](Device& d, nb::handle rows, nb::handle out) {
             const Floats x(rows, "rows");
             const Array y(out, Array::write);
             require_hashes(y, x.rows(x.last()));
             unlocked([&] { d.hash_rows(x.data<float>(), y.size(), x.last(), y.data<std::uint64_t>()); });
           })
      .def("top_k",
           [](Device& d, nb::handle logits, nb::handle out) {
             const Floats x(logits, "logits");
             const Array y(out, Array::write);
             require(y.view().is_integer(8) && y.size() <= x.size(), "out must be int64, at most as long as logits");
             if (y.size()) unlocked([&] { d.top_k(x.data<float>(), x.size(), y.size(), y.data<Size>()); });
           })
      .def("rank",
           [](Device& d, nb::handle logits, Size token) {
             const Floats x(logits, "logits");
             if (token < 0 || token >= x.size()) refuse_index("token " + std::to_string(token) + " has no logit");
             return unlocked([&] { return d.rank(x.data<float>(), x.size(), token); });
           })
      .def("choose",
           [](Device& d, nb::handle logits, double temperature, Size top_k, double top_p, double min_p, double noise) {
             const Floats x(logits, "logits");
             require(x.size() > 0, "logits must not be empty");
             require(temperature > 0 && temperature <= 1e300, "temperature must be positive");
             require(top_k >= 1 && top_p > 0 && min_p >= 0 && min_p <= 1, "top_k, top_p or min_p is out of range");
             require(noise >= 0 && noise < 1, "noise must be in [0, 1)");
             const Device::Filter filter{temperature, top_p, min_p, std::min(top_k, x.size())};
             return unlocked([&] { return d.choose(x.data<float>(), x.size(), filter, noise); });
           });
}

}  // namespace

NB_MODULE(_core, m) {
  // What a thread still holds when the interpreter ends is not a leak, and nothing to trouble users with.
  nb::set_leak_warnings(false);
  m.doc() = "Native kernels. Use openwork.ops.cpu.Cpu, which gives them the interface of openwork.ops.reference.";
  m.def("available_isas", [] {
    std::vector<std::string> names;
    for (const Kernels* kernels : available_kernels()) names.emplace_back(kernels->isa);
    return names;
  });
  bind_records(m);
  nb::class_<Device> device(m, "Device");
  device.def("__init__", &make_device, nb::arg("threads"), nb::arg("isa"))
      .def_prop_ro("threads", &Device::threads)
      .def_prop_ro("busy_s", &Device::busy_s)
      .def_prop_ro("contract_id", [](const Device& d) { return d.kernels().contract_id; })
      .def("flops_per_step",
           [](const Device& d, const std::string& dtype) {
             const Number number = number_of(dtype);
             const int inputs = number == Number::float32 ? 1 : number == Number::bfloat16 ? 2 : 4;
             return 2.0 * kLanes * inputs * d.kernels().chains;
           })
      .def("checksum",
           [](Device& d, nb::handle data, std::uint64_t first_page) {
             const Array array(data, Array::read);
             return unlocked([&] { return d.checksum(array.data<void>(), array.bytes(), first_page); });
           })
      .def("read_all",
           [](Device& d, nb::handle data) {
             const Array array(data, Array::read);
             return unlocked([&] { return d.read_all(array.data<void>(), static_cast<std::size_t>(array.bytes())); });
           })
      .def("multiply_all", [](Device& d, const std::string& dtype, Size steps) {
        const Number number = number_of(dtype);
        return unlocked([&] { return d.multiply_all(number, steps); });
      });
  bind_layer_ops(device);
  bind_attention_ops(device);
  bind_head_ops(device);
}
