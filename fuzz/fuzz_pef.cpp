// PEF files: whole, and the segments behind their digests, which no changed byte would get past.
// The first byte says which: 0, a file follows; else the manifest and, for each chip, its pieces
// and one program, each behind its length.
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "fuzz.h"
#include "pef/codec.h"
#include "pef/read.h"

namespace shardwright::fuzz {
namespace {

void read_file(std::string_view bytes) {
  const int descriptor = memfd_create("fuzz.pef", 0);
  CHECK(descriptor >= 0);
  CHECK(::write(descriptor, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  expect_error_at_most([&] { pef::File::open(path)->verify_deep(); });
  close(descriptor);
}

void read_segments(Input input) {
  const auto part = [&] { return copy_of(input.take_part()); };
  const auto span = [](const SharedBytes& bytes) {
    return std::span(bytes.data, static_cast<size_t>(bytes.size));
  };
  pef::Manifest manifest = pef::decode_manifest(span(part()), "manifest");
  if (manifest.plans.empty()) return;
  pef::Plan& plan = manifest.plans.front();
  while (!input.empty()) {
    pef::ChipPlan chip = pef::decode_chip(span(part()), "chip");
    chip.programs.push_back(pef::decode_program(span(part()), "program"));
    plan.chips.push_back(std::move(chip));
  }
  if (static_cast<int>(plan.chips.size()) == plan.n_chips) pef::check_manifest(manifest);
}

}  // namespace
}  // namespace shardwright::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardwright;
  fuzz::Input input(data, size);
  if (input.take(1) == std::string_view("\0", 1))
    fuzz::read_file(input.rest());
  else
    fuzz::expect_error_at_most([&] { fuzz::read_segments(input); });
  return 0;
}
