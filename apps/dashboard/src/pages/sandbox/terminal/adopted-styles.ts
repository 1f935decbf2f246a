/**
 * xterm.js writes its rules into `<style>` elements, which the page's policy forbids. It takes a document to work with: this one
 * hands out style elements that put their text into a constructed style sheet instead, which the policy allows.
 */
export function documentWithoutInlineStyles(): Document {
  return new Proxy(document, {
    get(target, name) {
      if (name === 'createElement') return createElement;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

function createElement(tag: string, options?: ElementCreationOptions): HTMLElement {
  const element = document.createElement(tag, options);
  if (tag !== 'style') return element;
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, 'textContent', {
    set: (text: string) => sheet.replaceSync(text),
    get: () => Array.from(sheet.cssRules, ({ cssText }) => cssText).join('\n'),
  });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((adopted) => adopted !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}
