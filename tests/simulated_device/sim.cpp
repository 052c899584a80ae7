// A device "sim" for PyTorch without hardware: its memory is the host's, its kernels are the CPU's.
//
// What it adds are the rules of a GPU. A tensor of the CPU next to one of the device is an error,
// unless it is 0-dim or an index. So is a generator of the CPU. Bytes held are counted, and how
// often a GPU would have been waited for. Data and autograd are real. There is one device, with one stream.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

using at::Tensor;
using c10::DeviceIndex;
using c10::SymIntArrayRef;

constexpr auto SIM = c10::DeviceType::PrivateUse1;
const c10::Device DEVICE(SIM, 0);

// ---- memory --------------------------------------------------------------------------------

static std::mutex lock;
static std::unordered_map<void*, int64_t> sizes;
static int64_t held = 0, peak = 0;

static void release(void* memory) {
  std::lock_guard<std::mutex> alone(lock);
  held -= sizes[memory];
  sizes.erase(memory);
  std::free(memory);
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = nullptr;
    if (bytes) {
      std::lock_guard<std::mutex> alone(lock);
      TORCH_CHECK(posix_memalign(&memory, 64, bytes) == 0, "The host is out of memory.");
      sizes[memory] = bytes;
      held += bytes;
      peak = std::max(peak, held);
    }
    return {memory, memory, &release, DEVICE};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};
static Memory memory;
REGISTER_ALLOCATOR(SIM, &memory);

extern "C" {
int64_t sim_held() { return held; }
int64_t sim_peak() { return peak; }
void sim_reset_peak() { peak = held; }
}

// ---- waits: where the host goes on only once the device has done all its work ----------------

static std::atomic<int64_t> waits{0};
static thread_local bool falls_back = false;  // the copies of which are none of a GPU's
extern "C" int64_t sim_waits() { return waits; }

// What these return has a size, or is a value of the host, that the device must have computed.
static const std::unordered_set<std::string> WAITING{
    "aten::nonzero",     "aten::masked_select", "aten::equal",
    "aten::_unique2",    "aten::unique_dim",    "aten::unique_consecutive",
    "aten::bincount",    "aten::repeat_interleave"};
static bool is_mask(const c10::IValue& index) {
  return index.isTensor() && index.toTensor().defined() &&
         (index.toTensor().scalar_type() == at::kBool || index.toTensor().scalar_type() == at::kByte);
}

// ---- device, stream and generator ----------------------------------------------------------

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::Stream only() const { return c10::Stream(c10::Stream::DEFAULT, DEVICE); }
  c10::DeviceType type() const override { return SIM; }
  c10::Device exchangeDevice(c10::Device) const override { return DEVICE; }
  c10::Device getDevice() const override { return DEVICE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Stream getStream(c10::Device) const override { return only(); }
  c10::Stream getDefaultStream(c10::Device) const override { return only(); }
  c10::Stream getNewStream(c10::Device, int) const override { return only(); }
  c10::Stream exchangeStream(c10::Stream) const override { return only(); }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void record(void**, const c10::Stream&, DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Generator final : at::CPUGeneratorImpl {  // the CPU's numbers, called the device's
  explicit Generator(uint64_t seed) : CPUGeneratorImpl(seed) { device_ = DEVICE; }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  at::Device getDeviceFromPtr(void*) const override { return DEVICE; }
  at::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  at::Generator getNewGenerator(DeviceIndex) const override {
    return at::make_generator<Generator>(0);
  }
  const at::Generator& getDefaultGenerator(DeviceIndex) const override {
    static at::Generator only = getNewGenerator(0);
    return only;
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto* old = storage.unsafeGetStorageImpl();
    auto fresh = memory.allocate(bytes);
    memory.copy_data(fresh.mutable_get(), old->data(), std::min(bytes, old->nbytes()));
    old->set_data_ptr_noswap(std::move(fresh));
    old->set_nbytes(bytes);
  }
};
static Hooks hooks;

extern "C" void sim_register() {
  if (!at::isPrivateUse1HooksRegistered()) at::RegisterPrivateUse1HooksInterface(&hooks);
}

// ---- the kernels that are not the CPU's: memory, and views of it ---------------------------

static Tensor on_host(const Tensor& tensor) {  // the same memory, as a tensor of the CPU
  if (tensor.device().type() != SIM) return tensor;
  auto storage = tensor.storage();
  auto* data = const_cast<void*>(tensor.const_data_ptr());
  auto options = tensor.options().device(at::kCPU).requires_grad(false);
  auto keep = [storage](void*) {};
  return at::from_blob(data, tensor.sizes(), tensor.strides(), keep, options, at::Device(at::kCPU));
}

static Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype,
                    std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>,
                    std::optional<at::MemoryFormat> format) {
  constexpr c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(size, &memory, keys, c10::dtype_or_default(dtype), format);
}
static Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride,
                            std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                            std::optional<at::Device>, std::optional<bool>) {
  constexpr c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &memory, keys,
                                           c10::dtype_or_default(dtype));
}
static Tensor copy_from(const Tensor& from, const Tensor& to, bool without_waiting) {
  waits += !falls_back && !without_waiting && from.device() != to.device();
  on_host(to).copy_(on_host(from));
  return to;
}
static Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  if (to.sizes() != from.sizes()) at::native::resize_(to, from.sizes(), std::nullopt);
  return copy_from(from, to, false);
}
static at::Scalar item(const Tensor& tensor) {
  ++waits;
  return on_host(tensor).item();
}
static const Tensor& resize(const Tensor& self, SymIntArrayRef size,
                            std::optional<at::MemoryFormat> format) {
  return at::native::resize_(self, C10_AS_INTARRAYREF_SLOW(size), format);
}
static Tensor& set_source(Tensor& self, at::Storage storage, c10::SymInt offset,
                          SymIntArrayRef size, SymIntArrayRef stride) {
  auto sizes = C10_AS_INTARRAYREF_SLOW(size), strides = C10_AS_INTARRAYREF_SLOW(stride);
  at::native::checkSetStorage(self, storage, offset.expect_int(), sizes, strides);
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_offset(offset.expect_int());
  auto given = strides.empty() ? at::OptionalIntArrayRef() : at::OptionalIntArrayRef(strides);
  at::native::resize_impl_cpu_(impl, sizes, given, false);
  return self;
}
static Tensor& set_storage(Tensor& self, at::Storage storage) {
  std::vector<c10::SymInt> size{static_cast<int64_t>(storage.nbytes() / self.itemsize())}, none;
  return set_source(self, storage, 0, size, none);
}
static Tensor& set_tensor(Tensor& self, const Tensor& other) {
  auto offset = other.storage_offset();
  return set_source(self, other.storage(), offset, other.sym_sizes(), other.sym_strides());
}
static Tensor as_strided(const Tensor& self, SymIntArrayRef size, SymIntArrayRef stride,
                         std::optional<c10::SymInt> offset) {
  auto at = offset ? std::optional<int64_t>(offset->expect_int()) : std::nullopt;
  auto sizes = C10_AS_INTARRAYREF_SLOW(size), strides = C10_AS_INTARRAYREF_SLOW(stride);
  return at::native::as_strided_tensorimpl(self, sizes, strides, at);
}
static Tensor view(const Tensor& self, SymIntArrayRef size) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}
static Tensor reshape_alias(const Tensor& self, SymIntArrayRef size, SymIntArrayRef stride) {
  return as_strided(self, size, stride, self.sym_storage_offset());
}

// ---- every other kernel: the CPU's, once the arguments are where a GPU wants them ----------

static void check_tensor(const Tensor& tensor, const std::string& op, const std::string& argument) {
  TORCH_CHECK(!tensor.defined() || tensor.dim() == 0 || !tensor.device().is_cpu(),
              "Expected all tensors to be on the same device, but ", argument, " of ", op,
              " is on cpu, shape ", tensor.sizes(), ", and others are on sim:0");
}

static void on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& name = op.schema().name();
  const auto& arguments = op.schema().arguments();
  const auto first = stack->size() - arguments.size();
  waits += WAITING.count(name);
  std::vector<std::pair<at::Generator, at::Generator>> lent;  // the device's, and the CPU's for it
  for (size_t i = 0; i < arguments.size(); ++i) {
    auto& value = (*stack)[first + i];
    const auto& argument = arguments[i].name();
    if (value.isTensor()) {
      check_tensor(value.toTensor(), name, argument);
    } else if (value.isTensorList()) {
      for (const Tensor& tensor : value.toTensorList()) check_tensor(tensor, name, argument);
    } else if (value.isGenerator() && value.toGenerator().defined()) {
      auto own = value.toGenerator();
      TORCH_CHECK(own.device().type() == SIM, "Expected a generator of sim:0, but that of ", name,
                  " is on ", own.device());
      lent.emplace_back(own, at::make_generator<at::CPUGeneratorImpl>(0));
      lent.back().second.set_state(own.get_state());
      value = lent.back().second;
    } else if (value.isList()) {  // of optional tensors: indices, which may be on the CPU
      auto indices = value.toListRef();
      waits += std::any_of(indices.begin(), indices.end(), is_mask);
    }
  }
  struct Falling {
    Falling() { falls_back = true; }
    ~Falling() { falls_back = false; }
  };
  {
    Falling back;
    at::native::cpu_fallback(op, stack);
  }
  for (auto& [own, cpu] : lent) own.set_state(cpu.get_state());
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&on_cpu>());
}
TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("_copy_from", &copy_from);
  library.impl("_copy_from_and_resize", &copy_from_and_resize);
  library.impl("_local_scalar_dense", &item);
  library.impl("resize_", &resize);
  library.impl("set_.source_Storage_storage_offset", &set_source);
  library.impl("set_.source_Storage", &set_storage);
  library.impl("set_.source_Tensor", &set_tensor);
  library.impl("as_strided", &as_strided);
  library.impl("view", &view);
  library.impl("_reshape_alias", &reshape_alias);
}

// Under autocast products are in 16 bits, and layer norms and powers in 32, as on a GPU; all else,
// such as its other functions in 32 bits, is left as it is.
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(scaled_dot_product_attention, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(layer_norm, fp32)
  KERNEL_PRIVATEUSEONE(pow, Tensor_Scalar, fp32)
}
